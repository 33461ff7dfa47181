// Shared memory of ranks: what a process that is killed leaves in /dev/shm stays there, and takes
// memory, until somebody removes it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <set>

namespace flowmesh::executor {

// Adds the segments that a live process has mapped: files below /dev/shm that still have their
// name.
void AddSharedMemoryOf(pid_t pid, std::set<std::filesystem::path>& segments);

// Removes those that are still there; returns how many that were.
int RemoveSharedMemory(const std::set<std::filesystem::path>& segments);

}  // namespace flowmesh::executor
