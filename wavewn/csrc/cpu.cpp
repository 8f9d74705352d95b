#include "cpu.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace wavewn {

namespace {

// ---- instruction sets ----

// Sorted as the enumeration; the reasons come from CMakeLists.txt.
struct Entry {
    const char* name;
    const char* missing;  // why it was not compiled in; "" if it was
};
constexpr Entry ENTRIES[INSTRUCTION_SETS] = {
    {"avx512-fp16", WAVEWN_MISSING_AVX512_FP16},
    {"amx", WAVEWN_MISSING_AMX},
    {"avx512", WAVEWN_MISSING_AVX512},
    {"avx2", WAVEWN_MISSING_AVX2},
    {"portable", WAVEWN_MISSING_PORTABLE},
    {"avx512-bf16", WAVEWN_MISSING_AVX512_BF16},
    {"amx-bf16", WAVEWN_MISSING_AMX_BF16},
};

#if defined(__x86_64__)

struct Leaf {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // all 0 where the processor has no such leaf
};

Leaf cpuid(unsigned leaf, unsigned part = 0) noexcept {
    Leaf r;
    __get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// Which registers the operating system saves; 0 if it has not switched XSAVE on.
unsigned saved_registers(const Leaf& leaf_1) noexcept {
    const bool osxsave = leaf_1.ecx >> 27 & 1;
    if (!osxsave) return 0;  // XGETBV would be an illegal instruction
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

constexpr unsigned SAVED_AVX = 1u << 1 | 1u << 2;                   // XMM, YMM
constexpr unsigned SAVED_AVX512 = SAVED_AVX | 7u << 5;              // masks, ZMM, the upper 16
constexpr unsigned SAVED_AMX = SAVED_AVX512 | 1u << 17 | 1u << 18;  // tile settings, tiles

// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, sections 14.3,
// 15.2 and 18.2; the bits of CPUID are in volume 2A.
const char* processor_lacks(InstructionSet set) noexcept {
    const Leaf one = cpuid(1);
    const Leaf seven = cpuid(7);
    const unsigned saved = saved_registers(one);
    const auto saves = [saved](unsigned wanted) { return (saved & wanted) == wanted; };

    if (set == InstructionSet::portable) return "";

    if (!(one.ecx >> 28 & 1)) return "the CPU has no AVX";
    if (!(seven.ebx >> 5 & 1)) return "the CPU has no AVX2";
    if (!(one.ecx >> 12 & 1)) return "the CPU has no FMA";
    if (!(one.ecx >> 29 & 1)) return "the CPU has no F16C";
    if (!saves(SAVED_AVX)) return "the operating system does not save AVX registers";
    if (set == InstructionSet::avx2) return "";

    if (!(seven.ebx >> 16 & 1)) return "the CPU has no AVX-512";
    const bool bw_dq_vl = seven.ebx >> 30 & seven.ebx >> 17 & seven.ebx >> 31 & 1;
    if (!bw_dq_vl) return "the CPU has no AVX512-BW, -DQ and -VL";
    if (!(seven.ecx >> 11 & 1)) return "the CPU has no AVX512-VNNI";
    if (!saves(SAVED_AVX512)) return "the operating system does not save AVX-512 registers";
    if (set == InstructionSet::avx512) return "";

    if (set == InstructionSet::avx512_fp16) {
        return seven.edx >> 23 & 1 ? "" : "the CPU has no AVX512-FP16";
    }
    if (set == InstructionSet::avx512_bf16 || set == InstructionSet::amx_bf16) {
        const bool there = seven.eax >= 1 && (cpuid(7, 1).eax >> 5 & 1);
        if (!there) return "the CPU has no AVX512-BF16";
        if (set == InstructionSet::avx512_bf16) return "";
        const bool tiles = seven.edx >> 24 & seven.edx >> 22 & 1;
        if (!tiles) return "the CPU has no AMX-BF16";
    } else {
        const bool tiles = seven.edx >> 24 & seven.edx >> 25 & 1;
        if (!tiles) return "the CPU has no AMX-INT8";
    }
    return saves(SAVED_AMX) ? "" : "the operating system does not save AMX tiles";
}

#else

const char* processor_lacks(InstructionSet set) noexcept {
    return set == InstructionSet::portable ? "" : "this is no x86-64 CPU";
}

#endif

// ---- processors ----

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// Quota over period, both in microseconds; infinity where there is no quota ("max", -1, no file).
double quota(const std::string& quota_us, const std::string& period_us) {
    double part = 0, whole = 0;
    std::istringstream(quota_us) >> part;
    std::istringstream(period_us) >> whole;
    return part > 0 && whole > 0 ? part / whole : INFINITY;
}

// The smallest quota from a group up to the root of its hierarchy: each level's holds.
//
// In a container, /proc may tell the group's path as the host sees it while /sys shows the group
// itself as root; then only the root exists here, and that is the one to read.
double smallest_quota(const std::string& hierarchy, std::string group, bool version_2) {
    double smallest = INFINITY;
    while (true) {
        const std::string folder = hierarchy + group;
        if (version_2) {
            std::istringstream line(read_file(folder + "/cpu.max"));  // "max 100000"
            std::string part, whole;
            line >> part >> whole;
            smallest = std::min(smallest, quota(part, whole));
        } else {
            smallest = std::min(smallest, quota(read_file(folder + "/cpu.cfs_quota_us"),
                                                read_file(folder + "/cpu.cfs_period_us")));
        }
        const auto slash = group.rfind('/');
        if (slash == std::string::npos) return smallest;
        group.resize(slash);
    }
}

// The quota of this process's cgroup, in processors. A line of /proc/self/cgroup is
// "0::/group" for version 2 and "4:cpu,cpuacct:/group" for version 1.
double cgroup_quota(const std::string& root) {
    double smallest = INFINITY;
    std::istringstream lines(read_file(root + "proc/self/cgroup"));
    for (std::string line; std::getline(lines, line);) {
        const auto first = line.find(':');
        const auto second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::string group = line.substr(second + 1);
        if (group == "/") group.clear();
        if (controllers.empty()) {
            smallest = std::min(smallest, smallest_quota(root + "sys/fs/cgroup", group, true));
        } else if ((',' + controllers + ',').find(",cpu,") != std::string::npos) {
            const std::string hierarchy = root + "sys/fs/cgroup/" + controllers;
            smallest = std::min(smallest, smallest_quota(hierarchy, group, false));
            smallest = std::min(smallest, smallest_quota(root + "sys/fs/cgroup/cpu", group, false));
        }
    }
    return smallest;
}

int processors_of_the_mask() {
#if defined(__linux__)
    // The kernel wants a mask for all processors that it could have: grow until it is content.
    for (int processors = 1024; processors <= 1 << 20; processors *= 2) {
        cpu_set_t* const mask = CPU_ALLOC(processors);
        if (mask == nullptr) break;
        const std::size_t size = CPU_ALLOC_SIZE(processors);
        const bool known = sched_getaffinity(0, size, mask) == 0;
        const int count = known ? CPU_COUNT_S(size, mask) : 0;
        CPU_FREE(mask);
        if (known) return count;
        if (errno != EINVAL) break;
    }
#endif
    return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

const char* name_of(InstructionSet set) noexcept { return ENTRIES[static_cast<int>(set)].name; }

const char* why_not(InstructionSet set) noexcept {
    // Of two reasons the processor's comes first: another compiler would not help there.
    const char* const lacks = processor_lacks(set);
    return *lacks != '\0' ? lacks : ENTRIES[static_cast<int>(set)].missing;
}

const char* request_amx() noexcept {
    const char* const reason = why_not(InstructionSet::amx);
    if (*reason != '\0') return reason;
#if defined(__linux__) && defined(__x86_64__)
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023;
    constexpr int XFEATURE_XTILEDATA = 18;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return "";
    switch (errno) {
        case EINVAL: return "this Linux is older than 5.16 and lends no AMX tiles";
        case EOPNOTSUPP: return "this Linux does not lend AMX tiles";
        case ENOSPC: return "a thread's alternative signal stack is too small for AMX tiles";
        default: return "Linux refused the AMX tiles (a sandbox may forbid arch_prctl)";
    }
#else
    return "";  // macOS has no such gate, and saved_registers has looked
#endif
}

int usable_cpus(const char* root) {
    const double lent = std::ceil(cgroup_quota(root));
    const double found = std::max(1, processors_of_the_mask());
    return static_cast<int>(std::max(1.0, std::min(found, lent)));
}

}  // namespace wavewn
