// On-disk format of log files. Little-endian, fixed offsets; engine/README.md has the reasons.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "engine/storage/storage.h"

namespace valfs::log {

static_assert(std::endian::native == std::endian::little,
              "the structures below are written as they lie in memory");

inline constexpr uint64_t kBlock = storage::kBlockSize;
inline constexpr uint64_t kRecordAlignment = 8;
inline constexpr uint64_t kFirstGroupOffset = kBlock;  // behind the log file's header
inline constexpr uint32_t kPayloadChunk = 16 * 1024;   // bytes under one payload CRC
inline constexpr uint32_t kMaxPayload = 4 * 1024 * 1024;
inline constexpr uint32_t kMaxName = 65535;
inline constexpr uint16_t kFormatVersion = 2;

using FileId = uint32_t;
using Epoch = uint32_t;
using GroupSequence = uint64_t;   // 1, 2, 3 … without gaps over the life of the volume
using RecordSequence = uint64_t;  // rising; the cleaner's copies keep theirs
using ObjectId = uint64_t;        // inodes, directory entries (cookies) and blobs; never reused

constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Where a record starts. 0 = nowhere.
struct Position {
  uint64_t packed = 0;

  static constexpr Position at(FileId file, uint64_t offset) {
    return {uint64_t{file} << 32 | offset / kRecordAlignment};
  }
  constexpr FileId file() const { return static_cast<FileId>(packed >> 32); }
  constexpr uint64_t offset() const { return (packed & 0xffffffff) * kRecordAlignment; }
  constexpr explicit operator bool() const { return packed != 0; }
  friend constexpr bool operator==(Position, Position) = default;
};

// What salts every CRC of a log file.
struct Salt {
  uint32_t volume = 0;  // CRC32C of the volume id
  FileId file = 0;
  Epoch epoch = 0;
};

struct VolumeId {
  std::array<uint8_t, 16> bytes{};
  uint32_t salt() const;
  std::string text() const;  // 32 hex digits
  friend bool operator==(const VolumeId&, const VolumeId&) = default;
};

enum class RecordType : uint8_t {  // 0 is never valid, so zeros end a log cleanly
  kInode = 1,
  kExtent = 2,
  kTruncate = 3,
  kZero = 4,
  kName = 5,
  kUnname = 6,
  kRemove = 7,
  kBlobWrite = 8,
  kBlobSync = 9,
  kManifest = 10,
};
// An unknown type with this bit may be skipped; one without it refuses the mount.
inline constexpr uint8_t kIgnorableType = 0x80;
constexpr bool is_from_a_newer_version(RecordType type) {
  const auto number = static_cast<uint8_t>(type);
  return number > static_cast<uint8_t>(RecordType::kManifest) && (number & kIgnorableType) == 0;
}

// Log files of different temperature: what users write; what has survived one cleaning; what has
// survived more. Data that die together lie together, so that cleaning copies less (LFS, SOSP 1991;
// SepBIT, FAST 2022).
enum class Stream : uint16_t { kUser = 0, kWarm = 1, kCold = 2 };
inline constexpr size_t kStreams = 3;

struct LogFileHeader {
  static constexpr uint64_t kMagic = 0x31474f4c'46464c56;  // "VLFFLOG1"
  uint64_t magic = kMagic;
  uint16_t version = kFormatVersion;
  uint16_t reserved = 0;
  Epoch epoch = 0;
  VolumeId volume;
  FileId file = 0;
  uint32_t reserved2 = 0;
  uint64_t size = 0;  // bytes prepared, this header included
  uint32_t reserved3 = 0;
  uint32_t crc = 0;  // of everything before it
};
static_assert(sizeof(LogFileHeader) == 56 && std::is_trivially_copyable_v<LogFileHeader>);
static_assert(offsetof(LogFileHeader, crc) == 52);

struct GroupHeader {
  static constexpr uint32_t kMagic = 0x50524756;  // "VGRP"
  uint32_t magic = kMagic;
  uint16_t version = kFormatVersion;
  Stream stream = Stream::kUser;
  uint32_t volume_salt = 0;
  Epoch epoch = 0;
  FileId file = 0;
  uint32_t length = 0;  // bytes with header, records and directory, before padding
  uint32_t record_count = 0;
  uint32_t directory = 0;  // offset of the directory from the group's start
  GroupSequence sequence = 0;
  GroupSequence watermark = 0;     // every group up to it was durable when this one was sent
  RecordSequence next_record = 0;  // the first record sequence not yet given out
  ObjectId next_object = 0;        // the first object id not yet given out
  uint64_t previous_end = 0;       // packed Position behind the previous group; 0 for the first
  uint32_t previous_crc = 0;       // header CRC of the previous group
  uint32_t records_digest = 0;     // CRC32C over the header CRCs of its records, in order
  uint32_t directory_crc = 0;
  std::array<uint8_t, 40> reserved{};
  uint32_t crc = 0;  // of everything before it, salted with the group's offset
};
static_assert(sizeof(GroupHeader) == 128 && std::is_trivially_copyable_v<GroupHeader>);
static_assert(offsetof(GroupHeader, sequence) == 32);

struct RecordHeader {
  static constexpr uint16_t kMagic = 0x7652;  // "Rv"
  uint32_t crc = 0;  // of header, body, name and payload CRCs behind this field, salted
  uint16_t magic = kMagic;
  RecordType type{};
  uint8_t flags = 0;
  uint32_t meta_length = 0;     // header + body + name + payload CRCs, rounded up to 8
  uint32_t payload_length = 0;  // the record ends at meta_length + payload_length, rounded up to 8
  RecordSequence sequence = 0;
  ObjectId id = 0;
  uint64_t a = 0;  // see record.h
  uint64_t b = 0;
  int64_t seconds = 0;  // time of the change
  uint32_t nanoseconds = 0;
  uint16_t name_length = 0;
  uint16_t body_length = 0;
  GroupSequence origin = 0;  // tombstones copied by the cleaner: the group they first stood in
};
static_assert(sizeof(RecordHeader) == 72 && std::is_trivially_copyable_v<RecordHeader>);

// One for each record of a group; CRC'd apart, so that a damaged record still has a name.
struct DirectoryEntry {
  ObjectId id = 0;
  uint32_t offset = 0;  // from the group's start
  RecordType type{};
  std::array<uint8_t, 3> reserved{};
};
static_assert(sizeof(DirectoryEntry) == 16 && std::is_trivially_copyable_v<DirectoryEntry>);

// CRC of `bytes` that is only right at this place of this file of this epoch of this volume.
uint32_t salted_crc(const Salt& salt, uint64_t offset, std::span<const std::byte> bytes);

uint64_t payload_crc_count(uint64_t payload_length);

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

std::string log_file_path(FileId id);  // "wal/00/00/00000001"

}  // namespace valfs::log
