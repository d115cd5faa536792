import WireFormat

/// Names of files that depend on what a server says, made here and nowhere else, from values whose form is checked.
///
/// A hash has 64 hexadecimal digits, a run's id letters, digits, `_`, `-` and `.`: no name here has a slash, is hidden, or
/// climbs.
enum StateFileName {
    /// A model in the cache.
    static func model(_ file: Assignment.ModelFile) -> String {
        file.fileHash.text + (file.encoding == .f32 ? "" : "." + file.encoding.rawValue) + modelSuffix
    }

    static let modelSuffix = ".safetensors"

    /// A tokeniser in the cache.
    static func document(_ hash: ContentHash) -> String { hash.text + documentSuffix }

    static let documentSuffix = ".json"

    /// What sparse updates of a run have left out.
    static func residual(_ run: RunID) -> String { residualPrefix + run.text + residualSuffix }

    private static let residualPrefix = "residual-"
    private static let residualSuffix = ".f32"

    /// A run's control variate (SCAFFOLD), with one of ``controlSuffixes``.
    static func control(_ run: RunID) -> String { controlPrefix + run.text }

    private static let controlPrefix = "control-"
    /// Of a control variate that counts, of one that waits for its round, and of the note that says which round.
    static let controlSuffixes = [".safetensors", ".waiting", ".json"]

    /// Whether a name, such as one that was noted before a restart, is that of a run's residual.
    static func isResidual(_ name: String) -> Bool { run(ofFile: name).map { residual($0) == name } ?? false }

    /// The run that a file is kept for; `nil` for all other files.
    static func run(ofFile name: String) -> RunID? {
        if name.hasPrefix(residualPrefix), name.hasSuffix(residualSuffix) {
            return RunID(String(name.dropFirst(residualPrefix.count).dropLast(residualSuffix.count)))
        }
        guard name.hasPrefix(controlPrefix), let suffix = controlSuffixes.first(where: name.hasSuffix) else {
            return nil
        }
        return RunID(String(name.dropFirst(controlPrefix.count).dropLast(suffix.count)))
    }

    /// What is kept of a run's noised report.
    static func report(_ run: RunID) -> String { reportPrefix + run.text }

    static let reportPrefix = "report-"

    /// Whether a name, such as one that was noted before a restart, names a file of the directory itself.
    static func isPlain(_ name: String) -> Bool {
        !name.isEmpty && !name.hasPrefix(".") && name.utf8.count <= 200
            && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "\\") }
    }
}
