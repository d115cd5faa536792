import CKernels
import Foundation

/// How the C library's allocator shares out its memory among threads.
enum MemoryArenas {
    /// Bounds the arenas to one a core, which is how many threads run at a time.
    ///
    /// By itself it makes up to eight a core. What a request begins on one thread ends on another, so each arena keeps holes of
    /// its own among long polls that wait: with thousands of them the resident memory crept up for minutes, although
    /// what was in use stood still. An operator's own choice stands.
    static func limit() {
        let environment = ProcessInfo.processInfo.environment
        let tunables = environment["GLIBC_TUNABLES"] ?? ""
        guard environment["MALLOC_ARENA_MAX"] == nil, !tunables.contains("arena_max") else { return }
        martlet_limit_arenas(Int32(max(2, ProcessInfo.processInfo.activeProcessorCount)))
    }
}
