// A bound of core/limits.h is tried from both sides: the value at it is taken, or fails for a reason that is not the bound
// (a file that claims 2^36 tokens is too short); the next value is refused in words that name what was found or allowed.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"

namespace fathom {

inline std::string error_message(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

inline void expect_bound(const std::string& name, const std::function<void()>& at, const std::function<void()>& past, const std::string& words) {
  EXPECT_THAT(error_message(at), ::testing::Not(::testing::HasSubstr(words))) << name << ", at the bound";
  EXPECT_THAT(error_message(past), ::testing::HasSubstr(words)) << name << ", past the bound";
}

// A file of so many zero bytes that takes no room on disk.
inline std::string hollow_file(const std::string& path, int64_t bytes) {
  atomic_write(path, "");
  EXPECT_EQ(::truncate(path.c_str(), bytes), 0) << path;
  return path;
}

}  // namespace fathom
