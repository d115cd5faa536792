import Foundation
import Logging
import Tensors
import WireFormat

/// The files of model versions, as far as they are known to be whole.
struct ModelFiles: Sendable {
    let blobs: any BlobStore
    let logger: Logger

    /// A file that a version needs.
    struct File: Sendable {
        var path: String
        var sha256: String
        var byteCount: Int?
        /// What it is, in words.
        var owner: String
    }

    /// Beside a model's tensors: libraries that load files for PyTorch ask for `pt`.
    static let metadata = ["format": "pt", "made_by": "martlet"]

    /// Whether a file is known to be missing or damaged.
    var hasDamage: Bool { blobs.verifier.hasDamage }

    /// Looks again at the files that are known to be missing or damaged.
    func recheck() { blobs.verifier.recheck() }

    /// Writes a model among the blobs.
    func store(_ model: ParameterVector) throws -> (sha256: String, byteCount: Int) {
        let data = SafetensorsWriter.encode(model, metadata: Self.metadata)
        return (try blobs.put(data), data.count)
    }

    /// The files that a version needs.
    func files(of version: ModelVersionRecord) -> [File] {
        let place = "of version \(version.version) of run \(version.runId)"
        return [
            (owner(of: version), version.sha256, version.bytes),
            ("the optimiser's memory \(place)", version.optimizerSha256, nil),
            ("the control variate \(place)", version.controlSha256, nil),
        ].compactMap { owner, sha256, byteCount in
            sha256.map { File(path: blobs.path(sha256: $0), sha256: $0, byteCount: byteCount, owner: owner) }
        }
    }

    /// The size of a stored file, which a client takes no byte more of; `nil` where there is none.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say.
    func byteCount(sha256: String) throws(CoordinationError) -> Int? {
        try DurableFiles.byteCount(blobs.path(sha256: sha256), role: .model)
    }

    /// Hashes the files that a round starts from, if that was not done yet; for a thread that may wait.
    func verification(of version: ModelVersionRecord) -> @Sendable () throws -> Void {
        let files = files(of: version)
        return { [blobs] in
            for file in files { try blobs.verifier.check(file.path, sha256: file.sha256, owner: file.owner) }
        }
    }

    /// The tensors of a version's file, after it was hashed; does not wait for the hash of a large file.
    ///
    /// What it says may be kept for good: a hash has one layout, whatever becomes of the file later.
    ///
    /// - Parameters:
    ///   - version: The version.
    ///   - isNeeded: Whether a run that is open waits for it: what is asked of ended ones waits behind those.
    /// - Returns: Names, shapes and kinds.
    /// - Throws: ``CoordinationError`` with code `model_missing`, `model_damaged` or `storage_failed`: what is wrong with a stored file is
    ///   no caller's fault; `model_being_checked` while a large file is hashed for the first time since the start.
    func layout(of version: ModelVersionRecord, isNeeded: Bool = true) throws -> ParameterLayout {
        let path = blobs.path(sha256: version.sha256)
        let owner = owner(of: version)
        try blobs.verifier.checkSoon(path, sha256: version.sha256, owner: owner, isNeeded: isNeeded)
        let layout: ParameterLayout
        do {
            layout = try SafetensorsFile(path: path).layout
        } catch {
            if let failure = StorageFailure(error), !failure.isMissing { throw failure.error }
            throw blobs.verifier.noteUnusable(path, sha256: version.sha256, owner: owner)
        }
        // It may have been replaced between the hash and the header.
        guard blobs.verifier.isVerified(path) else { throw BlobVerifier.isBeingChecked(owner) }
        return layout
    }

    private func owner(of version: ModelVersionRecord) -> BlobVerifier.Owner {
        "the model file of version \(version.version) of run \(version.runId)"
    }

    /// Why the tensors of a run's models are not known yet, in words: their file is being hashed; `nil` if they are, or it is not.
    func checking(of run: RunState) -> String? {
        guard run.layout == nil, let first = run.versions.first,
            blobs.verifier.isWaiting(blobs.path(sha256: first.sha256))
        else { return nil }
        return BlobVerifier.isBeingChecked(owner(of: first)).message
    }

    /// Whether any file is being hashed.
    var isChecking: Bool { blobs.verifier.isHashing }

    /// What is wrong with the files that a run's next round starts from; `nil` if nothing is known to be.
    func damage(of run: RunState) -> BlobVerifier.Damage? {
        guard hasDamage, let version = run.versions.last else { return nil }
        return files(of: version).lazy.compactMap { [blobs] in blobs.verifier.damage($0.path) }.first
    }

    /// Looks at start whether what open runs need is there; the rest is looked at behind the first requests.
    func verifyAtStart(_ runs: RunTable) {
        // The first version's file says which tensors the run has.
        let open = runs.open.compactMap { runs[$0]?.versions }.flatMap { [$0.first, $0.count > 1 ? $0.last : nil] }
            .compactMap { $0 }
        let needed = open.flatMap(files)
        for file in needed { checkPresence(file) }
        for damage in blobs.verifier.damages { log(damage.sentence) }
        let all = runs.versions
        DispatchQueue.global(qos: .background).async {
            for file in all.lazy.joined().flatMap(files) {
                let before = blobs.verifier.damage(file.path)
                checkPresence(file)
                if before == nil, let damage = blobs.verifier.damage(file.path) { log(damage.sentence) }
            }
            for file in needed {
                do throws(CoordinationError) {
                    try blobs.verifier.check(file.path, sha256: file.sha256, owner: file.owner)
                } catch {
                    log(error.message)
                }
            }
        }
    }

    private func checkPresence(_ file: File) {
        blobs.verifier.checkPresence(file.path, sha256: file.sha256, byteCount: file.byteCount, owner: file.owner)
    }

    private func log(_ reason: String) {
        logger.error("A model's file cannot be used", metadata: ["reason": "\(reason)"])
    }

    /// The problems of model files, those of open runs first; so many at most.
    func problems(_ runs: RunTable) -> [ProblemView] {
        let damages = blobs.verifier.damages
        guard !damages.isEmpty else { return [] }
        let needed = Set(runs.open.compactMap { runs[$0]?.versions.last }.flatMap(files).map(\.path))
        let ordered = damages.filter { needed.contains($0.path) } + damages.filter { !needed.contains($0.path) }
        return ordered.prefix(20).map { damage in
            ProblemView(
                code: damage.code,
                severity: needed.contains(damage.path) ? "error" : "warning",
                count: damages.count,
                detail: "\(damage.sentence.prefix(1).uppercased() + damage.sentence.dropFirst())."
            )
        }
    }
}
