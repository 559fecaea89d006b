// What the operations of a mount share. Private to fs.
#pragma once

#include <fuse_lowlevel.h>

#include "fs/channel/channel.h"
#include "fs/file_system.h"
#include "fs/listing_bounds.h"
#include "fs/namespace.h"
#include "fs/request_counts.h"
#include "fs/virtual_files.h"

namespace valfs::fs {

// valfs is the only writer: what the kernel knows stays true until the kernel itself changes it.
inline constexpr double kForever = 1e9;  // seconds

struct FileSystem::Parts {
  Parts(Store& the_store, FileSystemOptions the_options, std::function<void()> ready)
      : store(the_store),
        options(std::move(the_options)),
        on_ready(std::move(ready)),
        names(the_store),
        virtual_files(the_store, counts,
                      {options.data_directory, options.mountpoint, options.mount_options,
                       [this] { return channel->description(); }}) {}

  Store& store;
  const FileSystemOptions options;
  const std::function<void()> on_ready;
  RequestCounts counts;
  ListingBounds listing_bounds;
  Namespace names;
  VirtualFiles virtual_files;
  std::atomic<fuse_session*> session{nullptr};
  Channel* channel = nullptr;
};

// libfuse's handlers, by kind; operations.cc puts them into one table.
struct Operations {
  using Parts = FileSystem::Parts;
  static Parts& parts(fuse_req_t request);
  static Parts& begin(fuse_req_t request, Request kind);

  static void reply_error(fuse_req_t request, const Error& error);
  static void reply_status(fuse_req_t request, const Status& status);
  static void reply_node(fuse_req_t request, const Result<Node>& node);
  static void reply_attributes(fuse_req_t request, const Node& node);
  static void reply_virtual(fuse_req_t request, const std::optional<struct stat>& stat,
                            double timeout);

  static void add_names(fuse_lowlevel_ops& table);
  static void add_attributes(fuse_lowlevel_ops& table);
  static void add_content(fuse_lowlevel_ops& table);
  static void add_directories(fuse_lowlevel_ops& table);
};

fuse_entry_param entry_of(const Node& node);

}  // namespace valfs::fs
