// Group sequences whose log files the cleaner has freed: what recovery need not miss.
#pragma once

#include <map>
#include <vector>

#include "engine/log/format.h"

namespace valfs::log {

class Retired {
 public:
  struct Interval {  // first … last, both included; also the body of a RETIRED record
    GroupSequence first = 0;
    GroupSequence last = 0;
  };

  void add(Interval interval);  // may touch or overlap others
  bool covers(GroupSequence group) const;
  // The first group ≥ `group` that is not covered.
  GroupSequence skip(GroupSequence group) const;
  std::vector<Interval> intervals() const;
  void assign(std::span<const std::byte> body);  // of a RETIRED record

 private:
  std::map<GroupSequence, GroupSequence> intervals_;  // first → last
};

}  // namespace valfs::log
