import Foundation
import TestSupport
import Testing

/// How a server shares out its memory among threads, seen from outside.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct MemoryTests {
    /// The heaps that glibc's allocator has made beside its first: 64 MiB of addresses each, at a multiple of that, of which the
    /// beginning may be used.
    private func heapCount(of process: Process) throws -> Int {
        let size = 64 << 20
        let maps = try String(contentsOfFile: "/proc/\(process.processIdentifier)/maps", encoding: .utf8)
        let lines = maps.split(separator: "\n").compactMap { line -> (start: Int, end: Int, access: Substring)? in
            let fields = line.split(separator: " ")
            let range = fields[0].split(separator: "-").compactMap { Int($0, radix: 16) }
            return range.count == 2 ? (range[0], range[1], fields[1]) : nil
        }
        return zip(lines, lines.dropFirst()).count { used, rest in
            used.access == "rw-p" && used.start % size == 0 && rest.access == "---p" && rest.start == used.end
                && rest.end == used.start + size
        }
    }

    /// Keeps as many of the server's threads at work as it has.
    private func ask(_ server: ServerProcess) throws {
        let port = try #require(Int(server.url.split(separator: ":").last ?? ""))
        let token = server.token
        let group = DispatchGroup()
        for _ in 0..<32 {
            group.enter()
            Thread {
                defer { group.leave() }
                guard let socket = try? LoopbackSocket(port: port) else { return }
                for path in ["overview", "populations", "runs", "clients", "events?limit=9", "audit"] {
                    let head = "GET /v1/\(path) HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \(token)\r\n"
                    socket.write(Array((head + "Accept: application/json\r\n\r\n").utf8))
                    _ = socket.read { !$0.isEmpty }
                }
            }.start()
        }
        group.wait()
    }

    /// An arena for each thread keeps holes of its own, since requests begin on one thread and end on another.
    ///
    /// Then memory creeps up under long polls although what is in use stands still; as many arenas as there are cores do not.
    @Test(.disabled(if: Sanitizer.isWatching)) func theAllocatorHasOneArenaForEachCore() throws {
        let directory = try TemporaryDirectory()
        let cores = max(2, ProcessInfo.processInfo.activeProcessorCount)
        // What an operator says stands: one arena is the first heap alone, and many are more than there are cores.
        for (choice, allowed) in [("", 0..<cores), ("1", 0..<1), ("64", cores..<64)] {
            let server = try ServerProcess.start(
                dataDirectory: directory.path + "/" + choice,
                environment: choice.isEmpty ? [:] : ["MALLOC_ARENA_MAX": choice]
            )
            defer { server.stop(SIGTERM) }
            try ask(server)
            var count = try heapCount(of: server.process)
            // Heaps only become more: which threads had work the first time is chance.
            var patience = Patience("heaps for MALLOC_ARENA_MAX=\(choice)")
            while count < allowed.lowerBound {
                try patience.pauseThread()
                try ask(server)
                count = try heapCount(of: server.process)
            }
            #expect(
                allowed.contains(count),
                "MALLOC_ARENA_MAX=\(choice): \(count) heaps beside the first, \(cores) cores"
            )
        }
    }
}
