import Crypto
import Foundation

/// The keys that seal the states of correlated noise: one a run, in a file of its own, destroyed when the run ends.
///
/// A state holds exact sums. While its run goes on it is needed; afterwards nobody may open it any more, whatever copies of it there
/// are. Earlier versions had one key for all runs, at the place that is configured; it goes when no state is left that needs it.
struct NoiseKeys: Sendable {
    /// The key that all runs shared; those of runs lie beside it, as `PATH.RUN`.
    let sharedPath: String

    var directory: String { (sharedPath as NSString).deletingLastPathComponent }
    private var prefix: String { (sharedPath as NSString).lastPathComponent + "." }

    /// Where a run's key lies.
    func path(run: String) -> String { sharedPath + "." + run }

    /// The key of a run, which is there or can be made.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`, or `noise_key_damaged` where the file holds something else.
    func make(run: String) throws -> SymmetricKey {
        if let known = try read(path(run: run)) { return known }
        let key = SymmetricKey(size: .bits256)
        try DurableFiles.write(key.withUnsafeBytes { Data($0) }, to: path(run: run), role: .noiseKey)
        return key
    }

    /// The key of a state that is there.
    ///
    /// It is never made anew: that would say that the state is lost, where only a disk is away.
    ///
    /// - Throws: ``CoordinationError`` with code `noise_key_missing`, or as ``make(run:)``.
    func known(run: String, isShared: Bool) throws -> SymmetricKey {
        let path = isShared ? sharedPath : path(run: run)
        if let key = try read(path) { return key }
        throw CoordinationError(
            .unavailable,
            "noise_key_missing",
            "the key \((path as NSString).lastPathComponent) of the run's correlated noise is not there: mount its disk, or put it "
                + "back; the round waits and goes on by itself. Where it is lost for good, cancel the run"
        )
    }

    /// - Returns: `nil` where there is no file.
    private func read(_ path: String) throws -> SymmetricKey? {
        guard let data = try DurableFiles.readIfPresent(path, role: .noiseKey) else { return nil }
        guard data.count == 32 else {
            throw CoordinationError(
                .unavailable,
                "noise_key_damaged",
                "the file of the noise key has \(data.count) bytes and not 32: restore it"
            )
        }
        return SymmetricKey(data: data)
    }

    /// The runs whose keys are there.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say; a directory that is away has none.
    func runs() throws(CoordinationError) -> [String] {
        (try DurableFiles.names(in: directory) ?? []).compactMap { name in
            let run = name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : ""
            return run.hasPrefix("run_") && !run.contains(".") ? run : nil
        }
    }

    /// Destroys a run's key.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    func destroy(run: String) throws { try DurableFiles.remove([path(run: run)], in: directory) }

    /// Destroys the key that all runs shared.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    func destroyShared() throws { try DurableFiles.remove([sharedPath], in: directory) }
}
