// FUSE over io_uring as the kernel speaks it since 6.14
// (Documentation/filesystems/fuse-io-uring.rst, include/uapi/linux/fuse.h from protocol 7.42 on).
// The headers of the distributions are older, so that the structures are spelled out here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace valfs::fs::uring {

// Commands of IORING_OP_URING_CMD on the FUSE descriptor.
inline constexpr uint32_t kRegister = 1;        // the first of an entry; addr: two iovecs
inline constexpr uint32_t kCommitAndFetch = 2;  // the answer to its request, and ready for the next

// What lies at offset 48 of such a submission.
struct Command {
  uint64_t flags = 0;
  uint64_t commit_id = 0;
  uint16_t queue = 0;
  uint8_t padding[6] = {};
};
static_assert(sizeof(Command) == 24);

// The first of an entry's two buffers; the second takes the payload.
struct EntryHeader {
  std::byte in_out[128];     // fuse_in_header of a request, fuse_out_header of an answer
  std::byte operation[128];  // the first argument of a request
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_size;
  uint32_t padding;
  uint64_t reserved;
};
static_assert(sizeof(EntryHeader) == 288 && offsetof(EntryHeader, commit_id) == 264);

// Payload buffers must take at least so much, besides what INIT has agreed on.
inline constexpr uint32_t kSmallestPayload = 8192;

// Flags of INIT, by the word that they are in.
inline constexpr uint32_t kParallelDirectoryOperations = 1U << 18;  // flags
inline constexpr uint32_t kHasFlags2 = 1U << 30;                    // flags
inline constexpr uint32_t kOverUring = 1U << 9;                     // flags2

// What INIT carries, as far as it is looked at.
struct InitRequest {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint32_t flags2;
};
struct InitAnswer {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_granularity;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t unused[7];
};
static_assert(sizeof(InitAnswer) == 64 && offsetof(InitAnswer, flags2) == 32);

}  // namespace valfs::fs::uring
