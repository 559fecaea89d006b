#include "fs/channel/uring_queue.h"

#include <linux/fuse.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/base/check.h"

namespace valfs::fs {
namespace {

constexpr uint64_t kWakeUp = ~uint64_t{0};  // user data of the eventfd's read
constexpr size_t kPage = 4096;
static_assert(sizeof(uring::EntryHeader) + sizeof(fuse_in_header) +
                  sizeof(uring::EntryHeader::operation) <=
              kPage);

thread_local UringQueue* current_queue = nullptr;

}  // namespace

UringQueue* UringQueue::current() {
  return current_queue;
}

Result<std::unique_ptr<UringQueue>> UringQueue::make(const Shape& shape, Callbacks callbacks) {
  std::unique_ptr<UringQueue> queue(new UringQueue(shape, std::move(callbacks)));
  VALFS_TRY(queue->set_up());
  return queue;
}

UringQueue::UringQueue(const Shape& shape, Callbacks callbacks)
    : shape_(shape),
      callbacks_(std::move(callbacks)),
      workers_(shape.cpu),
      entries_(std::make_unique<Entry[]>(shape.entries)) {
  VALFS_CHECK(shape.cpu <= kCpuMask && shape.entries < (1U << kCpuShift));
}

Status UringQueue::set_up() {
  wake_ = ::eventfd(0, EFD_CLOEXEC);
  if (wake_ < 0) return fail(errno, "cannot make an eventfd");
  const int made = io_uring_queue_init(shape_.entries + 1, &ring_, IORING_SETUP_SQE128);
  if (made < 0) return fail(-made, std::string("cannot make a ring: ") + std::strerror(-made));
  ring_made_ = true;
  if (const int error = io_uring_register_files(&ring_, &shape_.connection, 1); error < 0) {
    return fail(-error, std::string("cannot register with a ring: ") + std::strerror(-error));
  }
  // Pages appear as they are touched, and entries that are used least are never.
  const size_t stride = kPage + shape_.payload;
  memory_size_ = stride * shape_.entries;
  void* const memory = ::mmap(nullptr, memory_size_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail(errno, "no memory for the buffers of a ring");
  memory_ = static_cast<std::byte*>(memory);
  for (uint32_t i = 0; i < shape_.entries; i++) {
    Entry& entry = entries_[i];
    entry.header = reinterpret_cast<uring::EntryHeader*>(memory_ + i * stride);
    entry.payload = memory_ + i * stride + kPage;
    entry.buffers[0] = {entry.header, sizeof *entry.header};
    entry.buffers[1] = {entry.payload, shape_.payload};
  }
  return {};
}

UringQueue::~UringQueue() {
  VALFS_CHECK(!thread_.joinable());
  workers_.stop();
  if (ring_made_) io_uring_queue_exit(&ring_);
  if (memory_ != nullptr) ::munmap(memory_, memory_size_);
  if (wake_ >= 0) ::close(wake_);
}

void UringQueue::start() {
  thread_ = std::thread([this] { run(); });
}

void UringQueue::stop() {
  stopping_ = true;
  ::eventfd_write(wake_, 1);
  if (thread_.joinable()) thread_.join();
  workers_.stop();
  // At once: the ring's end alone would let go of the connection some time later.
  io_uring_unregister_files(&ring_);
}

void UringQueue::run() {
  settle_thread("valfs-fuse", shape_.cpu);
  current_queue = this;
  for (uint32_t i = 0; i < shape_.entries; i++) submit(i, uring::kRegister);
  alive_ = shape_.entries;
  await_wake_up();
  while (!stopping_ && alive_ > 0) {
    const int submitted = io_uring_submit_and_wait(&ring_, 1);
    if (submitted < 0 && submitted != -EINTR && submitted != -EAGAIN && submitted != -EBUSY) {
      spdlog::critical("a ring of the mount fails: {}", std::strerror(-submitted));
      callbacks_.failed();
      break;
    }
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&ring_, &completion) == 0) {
      const io_uring_cqe copy = *completion;
      io_uring_cqe_seen(&ring_, completion);
      take(copy);
    }
  }
  // Whoever is refused from the start is served over /dev/fuse: the kernel sees to that. Later,
  // nobody would take what it puts into this queue.
  if (!stopping_ && alive_ == 0 && last_error_ != 0 && requests() > 0) callbacks_.failed();
  current_queue = nullptr;
}

void UringQueue::take(const io_uring_cqe& completion) {
  if (completion.user_data == kWakeUp) {
    await_wake_up();
    hand_in();
    return;
  }
  const auto index = static_cast<uint32_t>(completion.user_data);
  if (completion.res != 0) {
    retire(index, -completion.res);
  } else {
    take_request(index);
  }
}

// Puts header, first argument and payload next to each other, as /dev/fuse gives them.
void UringQueue::take_request(uint32_t index) {
  Entry& entry = entries_[index];
  fuse_in_header header{};
  std::memcpy(&header, entry.header->in_out, sizeof header);
  const size_t around = sizeof header + entry.header->payload_size;
  const size_t argument = header.len - around;
  if (header.len < around || argument > sizeof entry.header->operation) {
    spdlog::error("a request of {} bytes makes no sense", header.len);
    return retire(index, EPROTO);
  }
  entry.at = At::kUs;
  entry.unique = header.unique;
  const uint64_t token = kToken | (++generation_ & kGenerationMask) << kGenerationShift |
                         uint64_t{shape_.cpu} << kCpuShift | index;
  entry.token.store(token, std::memory_order_relaxed);
  header.unique = token;
  std::byte* const begin = entry.payload - argument - sizeof header;
  std::memcpy(begin, &header, sizeof header);
  std::memcpy(begin + sizeof header, entry.header->operation, argument);
  requests_.fetch_add(1, std::memory_order_relaxed);
  const std::span request(begin, header.len);
  if (!callbacks_.may_block(header.opcode, header.nodeid, request.size())) {
    return callbacks_.dispatch(request);
  }
  workers_.run([this, request] { callbacks_.dispatch(request); });
}

void UringQueue::answer(uint64_t token, std::span<const iovec> parts) {
  const auto index = static_cast<uint32_t>(token & ((1U << kCpuShift) - 1));
  VALFS_CHECK(index < shape_.entries);
  Entry& entry = entries_[index];
  // Once only, and to the request that is there.
  VALFS_CHECK(entry.token.exchange(0, std::memory_order_relaxed) == token);
  fuse_out_header header{};
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  header.unique = entry.unique;
  std::memcpy(entry.header->in_out, &header, sizeof header);
  size_t length = 0;
  for (const iovec& part : parts.subspan(1)) {
    VALFS_CHECK(length + part.iov_len <= shape_.payload);
    std::memmove(entry.payload + length, part.iov_base, part.iov_len);
    length += part.iov_len;
  }
  entry.header->payload_size = static_cast<uint32_t>(length);
  if (current_queue == this) return submit(index, uring::kCommitAndFetch);
  uint32_t newest = answered_.load(std::memory_order_relaxed);
  do {
    entry.next = newest;
  } while (!answered_.compare_exchange_weak(newest, index, std::memory_order_release,
                                            std::memory_order_relaxed));
  if (newest == kNobody) ::eventfd_write(wake_, 1);
}

// The answers that other threads have left.
void UringQueue::hand_in() {
  uint32_t index = answered_.exchange(kNobody, std::memory_order_acquire);
  while (index != kNobody) {
    const uint32_t next = entries_[index].next;
    submit(index, uring::kCommitAndFetch);
    index = next;
  }
}

io_uring_sqe& UringQueue::submission() {
  io_uring_sqe* submission = io_uring_get_sqe(&ring_);
  if (submission == nullptr) {  // the eventfd's, beyond one for each entry
    io_uring_submit(&ring_);
    submission = io_uring_get_sqe(&ring_);
  }
  VALFS_CHECK(submission != nullptr);
  std::memset(static_cast<void*>(submission), 0, 2 * sizeof *submission);  // IORING_SETUP_SQE128
  return *submission;
}

void UringQueue::submit(uint32_t index, uint32_t command) {
  Entry& entry = entries_[index];
  if (command == uring::kCommitAndFetch && entry.at != At::kUs) return;
  io_uring_sqe& sqe = submission();
  sqe.opcode = IORING_OP_URING_CMD;
  sqe.flags = IOSQE_FIXED_FILE;
  sqe.fd = 0;
  sqe.cmd_op = command;
  sqe.user_data = index;
  uring::Command arguments;
  arguments.queue = static_cast<uint16_t>(shape_.cpu);
  if (command == uring::kRegister) {
    sqe.addr = reinterpret_cast<uint64_t>(entry.buffers);
    sqe.len = 2;
  } else {
    arguments.commit_id = entry.header->commit_id;
  }
  std::memcpy(sqe.cmd, &arguments, sizeof arguments);
  entry.at = At::kKernel;
}

void UringQueue::await_wake_up() {
  io_uring_sqe& sqe = submission();
  io_uring_prep_read(&sqe, wake_, &woken_, sizeof woken_, 0);
  sqe.user_data = kWakeUp;
}

void UringQueue::retire(uint32_t index, int error) {
  entries_[index].at = At::kNowhere;
  alive_--;
  if (error == ENOTCONN || error == ECANCELED || error == ECONNABORTED) return;  // it is gone
  last_error_ = error;
  spdlog::error("the kernel refuses an entry of the ring of CPU {}: {}", shape_.cpu,
                std::strerror(error));
}

}  // namespace valfs::fs
