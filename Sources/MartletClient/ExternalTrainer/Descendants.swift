import CLibrary
import Foundation

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Processes that a command started, in whatever process group, session and environment.
///
/// The shell that runs the command is what the kernel gives orphans to (`PR_SET_CHILD_SUBREAPER`), so as long as it is there, all
/// that came of the command hang below it, however often they forked and whatever they left. It stops itself when the
/// command has ended, and goes on when nothing is left.
enum Descendants {
    /// Kills everything below a process, until nothing is left but it.
    ///
    /// What is killed may have had children: those come to the process itself, and are found in the next pass.
    static func killAll(below root: pid_t) {
        var isFirst = true
        // A process that forks faster than it is found is one that the machine's owner has to see to.
        for _ in 0..<500 {
            let found = below(root)
            if found.isEmpty { return }
            // Stopped first, so that what forks without an end cannot outrun the passes.
            for process in found { kill(process, SIGSTOP) }
            for process in found { kill(process, SIGKILL) }
            if !isFirst { usleep(2_000) }
            isFirst = false
        }
    }

    /// Kills every process of this user whose environment holds a variable with this value, until there is none left.
    ///
    /// Finds what the shell could not keep because it was killed itself; not what had been given a new environment.
    static func killAll(marked name: String, as value: String?) {
        guard let value else { return }
        let wanted = Array("\(name)=\(value)".utf8)
        killAll { $0.elementsEqual(wanted) }
    }

    /// Kills every process of this user whose environment holds a variable with a value that ends like this.
    static func killAll(marked name: String, endingIn end: String) {
        let (start, end) = (Array("\(name)=".utf8), Array(end.utf8))
        killAll { $0.starts(with: start) && $0.suffix(end.count).elementsEqual(end) }
    }

    private static func killAll(marked isMark: (Data) -> Bool) {
        // A process that is just being started shows nothing yet, and what is killed may have had children: both are seen in the next
        // pass. The bound is for a machine on which something is being started all the time.
        for _ in 0..<500 {
            let (found, areAllReadable) = marked(isMark)
            for process in found { kill(process, SIGKILL) }
            if found.isEmpty, areAllReadable { return }
            usleep(2_000)
        }
    }

    private static var all: [pid_t] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { pid_t($0) }
    }

    /// The processes with a mark, those that have ended left out, and whether the environments of all could be read.
    private static func marked(_ isMark: (Data) -> Bool) -> (found: [pid_t], areAllReadable: Bool) {
        var areAllReadable = true
        let found = all.filter { process in
            guard process != getpid(),
                let environment = FileManager.default.contents(atPath: "/proc/\(process)/environ")
            else { return false }
            if environment.isEmpty, isBeingStarted(process) { areAllReadable = false }
            return environment.split(separator: 0).contains { isMark($0) }
        }
        return (found, areAllReadable)
    }

    /// Whether a process is within `execve`: it has a program, but no argument yet, not even its name.
    ///
    /// The kernel lets the parent go on before it notes where arguments and environment lie. What has ended and the kernel's own
    /// threads have no program.
    private static func isBeingStarted(_ process: pid_t) -> Bool {
        guard FileManager.default.contents(atPath: "/proc/\(process)/cmdline")?.isEmpty == true else { return false }
        return (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/exe")) != nil
    }

    /// What runs below a process; those that have ended and that nobody has waited for yet do not.
    private static func below(_ root: pid_t) -> [pid_t] {
        var children: [pid_t: [pid_t]] = [:]
        var ended: Set<pid_t> = []
        for process in all {
            // `PID (NAME) STATE PARENT …`, where the name may hold anything.
            guard let bytes = FileManager.default.contents(atPath: "/proc/\(process)/stat"),
                let close = bytes.lastIndex(of: UInt8(ascii: ")"))
            else { continue }
            let fields = String(decoding: bytes[bytes.index(after: close)...], as: UTF8.self).split(separator: " ")
            guard fields.count > 1, let parent = pid_t(fields[1]) else { continue }
            children[parent, default: []].append(process)
            if fields[0] == "Z" || fields[0] == "X" { ended.insert(process) }
        }
        var found: [pid_t] = []
        var open = children[root] ?? []
        while let process = open.popLast() {
            if !ended.contains(process) { found.append(process) }
            open += children[process] ?? []
        }
        return found
    }
}
