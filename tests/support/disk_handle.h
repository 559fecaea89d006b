// A SimDisk as a store takes it: the store may go, the disk stays.
#pragma once

#include <memory>

#include "engine/storage/sim_disk.h"

namespace valfs::test {

std::unique_ptr<storage::Storage> handle_of(storage::SimDisk& disk);

}  // namespace valfs::test
