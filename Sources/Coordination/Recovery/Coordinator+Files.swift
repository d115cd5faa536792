import Foundation
import Logging
import Tensors
import WireFormat

/// The files of model versions, as far as they are known to be whole.
extension Coordinator {
    /// The files that a version needs, with what each is for.
    nonisolated func files(
        of version: ModelVersionRecord
    ) -> [(path: String, sha256: String, byteCount: Int?, owner: String)] {
        let place = "of version \(version.version) of run \(version.runId)"
        return [
            ("the model file \(place)", version.sha256, version.bytes),
            ("the optimiser's memory \(place)", version.optimizerSha256, nil),
            ("the control variate \(place)", version.controlSha256, nil),
        ].compactMap { owner, sha256, byteCount in
            sha256.map { (blobs.path(sha256: $0), $0, byteCount, owner) }
        }
    }

    /// Hashes the files that a round starts from, where that was not done yet; for a thread that may wait.
    func verification(of version: ModelVersionRecord) -> @Sendable () throws -> Void {
        let files = files(of: version)
        return { [blobs] in
            for file in files { try blobs.verifier.check(file.path, sha256: file.sha256, owner: file.owner) }
        }
    }

    /// The tensors of a version's file.
    ///
    /// - Throws: ``CoordinationError`` with code `model_missing`, `model_damaged` or `storage_failed`: what is wrong with a stored file is
    ///   no caller's fault.
    func storedLayout(of version: ModelVersionRecord) throws -> ParameterLayout {
        let path = blobs.path(sha256: version.sha256)
        do {
            return try SafetensorsFile(path: path).layout
        } catch {
            if let failure = StorageFailure(error), !failure.isMissing { throw failure.error }
            throw blobs.verifier.noteUnusable(
                path,
                sha256: version.sha256,
                owner: "the model file of version \(version.version) of run \(version.runId)"
            )
        }
    }

    /// What is wrong with the files that a run's next round starts from; `nil` where nothing is known to be.
    func damage(of run: RunState) -> BlobVerifier.Damage? {
        guard let version = run.versions.last else { return nil }
        return files(of: version).lazy.compactMap { [blobs] in blobs.verifier.damage($0.path) }.first
    }

    /// Looks at start whether what open runs need is there; the rest is looked at behind the first requests.
    func verifyModels() {
        // The first version's file says which tensors the run has.
        let open = openRuns.compactMap { runs[$0]?.versions }.flatMap { [$0.first, $0.count > 1 ? $0.last : nil] }
            .compactMap { $0 }
        for file in open.flatMap(files) {
            blobs.verifier.checkPresence(
                file.path,
                sha256: file.sha256,
                byteCount: file.byteCount,
                owner: file.owner
            )
        }
        for damage in blobs.verifier.damages {
            logger.error("A model's file cannot be used", metadata: ["reason": "\(damage.sentence)"])
        }
        let all = runs.values.map(\.versions)
        DispatchQueue.global(qos: .background).async { [self] in
            for file in all.lazy.joined().flatMap(files) {
                let before = blobs.verifier.damage(file.path)
                blobs.verifier.checkPresence(
                    file.path,
                    sha256: file.sha256,
                    byteCount: file.byteCount,
                    owner: file.owner
                )
                guard before == nil, let damage = blobs.verifier.damage(file.path) else { continue }
                logger.error("A model's file cannot be used", metadata: ["reason": "\(damage.sentence)"])
            }
            let needed = open.flatMap(files)
            for file in needed {
                do throws(CoordinationError) {
                    try blobs.verifier.check(file.path, sha256: file.sha256, owner: file.owner)
                } catch {
                    logger.error("A model's file cannot be used", metadata: ["reason": "\(error.message)"])
                }
            }
        }
    }

    /// The problems of model files, those of open runs first; so many at most.
    func modelFileProblems() -> [ProblemView] {
        let damages = blobs.verifier.damages
        guard !damages.isEmpty else { return [] }
        let needed = Set(openRuns.compactMap { runs[$0] }.compactMap(\.versions.last).flatMap(files).map(\.path))
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
