// Errors as values. Nothing in valfs throws; whoever gets a Status or Result has to look at it.
#pragma once

#include <cerrno>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace valfs {

// An errno (never 0) and a sentence that names the thing it happened to.
struct Error {
  int code = EIO;
  std::string what;
};

template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Status = Result<void>;

inline tl::unexpected<Error> fail(int code, std::string what) {
  return tl::unexpected<Error>(Error{code, std::move(what)});
}

}  // namespace valfs

// Returns the error of `expression` from the calling function, if it has one.
#define VALFS_TRY(expression)                                                \
  do {                                                                       \
    if (auto valfs_try = (expression); !valfs_try)                           \
      return ::tl::unexpected<::valfs::Error>(std::move(valfs_try).error()); \
  } while (false)

#define VALFS_CONCAT_(a, b) a##b
#define VALFS_CONCAT(a, b) VALFS_CONCAT_(a, b)

// `VALFS_ASSIGN(auto file, storage.open(...));` declares or assigns the value, or returns the
// error.
#define VALFS_ASSIGN(target, expression)                           \
  auto VALFS_CONCAT(valfs_result_, __LINE__) = (expression);       \
  if (!VALFS_CONCAT(valfs_result_, __LINE__))                      \
    return ::tl::unexpected<::valfs::Error>(                       \
        std::move(VALFS_CONCAT(valfs_result_, __LINE__)).error()); \
  target = std::move(*VALFS_CONCAT(valfs_result_, __LINE__))
