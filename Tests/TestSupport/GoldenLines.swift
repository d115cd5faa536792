import Foundation

/// A fixture of lines `name<TAB>text`: what was stored or sent by an earlier version, held to the byte.
///
/// With `MARTLET_WRITE_GOLDEN` in the environment the fixture is written in place of being compared. Do that with the program
/// whose bytes are to be kept, never to make a test pass.
package enum GoldenLines {
    /// The names of lines that differ from the fixture, are missing from it, or are only there.
    ///
    /// - Parameters:
    ///   - lines: What this program makes; neither part may hold a line break.
    ///   - path: The fixture.
    /// - Returns: What differs, for people.
    /// - Throws: Where the fixture cannot be read, or written.
    package static func differences(_ lines: [(name: String, text: String)], from path: String) throws -> [String] {
        let written = lines.map { $0.name + "\t" + $0.text + "\n" }.joined()
        if ProcessInfo.processInfo.environment["MARTLET_WRITE_GOLDEN"] != nil {
            try written.write(toFile: path, atomically: true, encoding: .utf8)
            return []
        }
        let expected = try String(contentsOfFile: path, encoding: .utf8)
        if expected == written { return [] }
        let (old, new) = (expected.split(separator: "\n"), written.split(separator: "\n"))
        var found: [String] = []
        for place in 0..<max(old.count, new.count) {
            let (before, now) = (place < old.count ? old[place] : "nothing", place < new.count ? new[place] : "nothing")
            if before != now { found.append("was: \(before)\nis:  \(now)") }
        }
        return found.isEmpty ? ["only line breaks differ"] : found
    }
}
