import SecureAggregation
import StrictJSON
import Tensors
import UpdateCompression
import WireFormat

/// Holds settings against what is stored: a limit that was lowered under an open run stops it without a word.
package enum SettingsCheck {
    /// What a run's updates may have, in bytes of tensors.
    static func updateByteCount(_ specification: RunSpecification, layout: ParameterLayout) -> Int {
        if let file = specification.maskedUpdateFile(coordinateCount: layout.parameterCount) { return file.byteCount }
        let layout = specification.training.usesControlVariates ? ControlVariates.jointLayout(layout) : layout
        return specification.training.encoding.byteLimit(
            parameterCount: layout.parameterCount,
            tensorCount: layout.tensors.count
        )
    }

    /// Requests a second that a client of a run sends while it works: three signs of life a lease, and one of everything else.
    static func requestsPerSecond(_ specification: RunSpecification) -> Double {
        3 / max(1.5, specification.cohort.leaseS ?? 60) + 0.1
    }

    /// Looks for open runs whose updates are larger than `limits.model_bytes`.
    ///
    /// - Parameters:
    ///   - state: The whole state, as the store has it.
    ///   - blobs: The directory's files.
    ///   - modelByteLimit: The setting.
    /// - Returns: An error for each of them.
    package static func findings(_ state: StoredState, blobs: any BlobStore, modelByteLimit: Int) -> [Finding] {
        state.runs.filter { !$0.state.isFinal }.compactMap { run in
            guard let document = try? JSONValue.parse(Array(run.specification.utf8)),
                let specification = try? RunSpecification.read(document), specification.analytics == nil,
                let first = state.modelVersions.first(where: { $0.runId == run.id }),
                let layout = layout(sha256: first.sha256, blobs)
            else { return nil }
            let needed = updateByteCount(specification, layout: layout)
            guard needed > modelByteLimit else { return nil }
            return Finding(
                .error,
                "updates_too_large",
                "an update of run \(run.id) may have \(needed) bytes, and limits.model_bytes lets in \(modelByteLimit)",
                remedy: "raise limits.model_bytes, or cancel the run"
            )
        }
    }

    /// The tensors of a model whose file is whole; what is wrong with another one other findings say.
    private static func layout(sha256: String, _ blobs: any BlobStore) -> ParameterLayout? {
        let path = blobs.path(sha256: sha256)
        guard (try? blobs.verifier.check(path, sha256: sha256, owner: "a model file")) != nil else { return nil }
        return try? SafetensorsFile(path: path).layout
    }
}
