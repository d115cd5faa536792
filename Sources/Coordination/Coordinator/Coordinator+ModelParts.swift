package import Foundation
import StrictJSON
package import Tensors
package import WireFormat

/// What a model needs beside its own tensors: another run's version, and a tokeniser.
extension Coordinator {
    /// The specification with the base's version fixed, so that every client of every round gets the same one.
    func resolvingBase(_ specification: RunSpecification) throws -> RunSpecification {
        guard let base = specification.model.base else { return specification }
        guard let versions = runs[base.run]?.versions,
            let version = base.version.map({ number in versions.first { $0.version == number } }) ?? versions.last
        else {
            throw CoordinationError(
                .unprocessable,
                "base_missing",
                "model.base: run '\(base.run)' has no model version \(base.version.map(String.init) ?? "yet")"
            )
        }
        var resolved = specification
        resolved.model.base?.version = version.version
        return resolved
    }

    /// Refuses a base whose tensors are not those that the model builds on, before any client meets them.
    ///
    /// - Throws: `DocumentError` at `/model/base` with the first tensor that is wrong; ``CoordinationError``.
    package func checkBase(of specification: RunSpecification, against wanted: ParameterLayout) throws {
        guard let base = try resolvingBase(specification).model.base,
            let version = runs[base.run]?.versions.first(where: { $0.version == base.version })
        else { return }
        let actual = try storedLayout(of: version)
        if let reason = wanted.mismatch(of: actual, "version \(version.version) of run \(base.run)") {
            throw DocumentError("/model/base", reason)
        }
    }

    /// The size of a stored file, which a client takes no byte more of.
    func fileByteCount(sha256: String) -> Int? {
        try? FileManager.default.attributesOfItem(atPath: blobs.path(sha256: sha256))[.size] as? Int
    }

    /// The base as an assignment names it.
    package func baseModel(of specification: RunSpecification) -> AssignmentBody.Model? {
        guard let base = specification.model.base,
            let version = runs[base.run]?.versions.first(where: { $0.version == base.version })
        else { return nil }
        return .init(
            version: version.version,
            url: Endpoints.weights(RunReference(base.run), VersionReference(version.version)).target,
            sha256: version.sha256,
            bytes: version.bytes
        )
    }

    /// The tokeniser of a run as JSON.
    ///
    /// - Throws: ``CoordinationError`` `not_found` where the run has none of its own.
    package func tokenizer(run id: String) throws -> (document: Data, sha256: String) {
        guard let tokenizer = try runState(id).longTokenizer else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no tokenizer that is kept apart")
        }
        return tokenizer
    }

    /// Whether devices need a version now: the newest two of a run, of which those at work have one, or the base of another run.
    package func needsModel(run id: String, version: Int) -> Bool {
        guard let run = runs[id], let newest = run.versions.last else { return false }
        return version >= newest.version - 1
            || (runsByBase[id] ?? []).contains { runs[$0]?.specification.model.base?.version == version }
    }

    /// Whether a client has ever been assigned in the run, or in one that builds on it, and so may read its models.
    package func mayReadModels(client: String, run: String) -> Bool {
        runs[run]?.participations[client] != nil || runs[run]?.evaluations[client] != nil
            || (runsByBase[run] ?? []).contains { runs[$0]?.participations[client] != nil }
    }
}
