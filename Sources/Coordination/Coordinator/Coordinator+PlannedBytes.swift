import Foundation
import UpdateCompression
import WireFormat

/// Sizes as they are shown: with privacy those that were planned, since what arrived may depend on clients' data.
extension Coordinator {
    /// Bytes of the round's accepted updates; `nil` where their number is secret.
    func bytesUp(_ round: RoundRecord, of run: RunState) -> Int? {
        guard run.specification.isPrivate else { return round.bytesUp }
        guard !run.terms(of: round).isSecret else { return nil }
        return plannedByteCount(of: run, isEvaluation: round.isEvaluation) * round.accepted
    }

    /// Bytes of models that were sent while the attempt was open; `nil` where the number of clients is secret.
    func bytesDown(_ round: RoundRecord, of run: RunState) -> Int? {
        run.terms(of: round).isSecret ? nil : round.bytesDown
    }

    /// The size that an update must have, or measurements that are published with noise; `nil` where any will do.
    func plannedUpdateByteCount(of run: RunState, isEvaluation: Bool) -> Int? {
        guard run.specification.isPrivate, !isEvaluation || run.specification.hasPrivateEvaluation else { return nil }
        let count = plannedByteCount(of: run, isEvaluation: isEvaluation)
        return count > 0 ? count : nil
    }

    /// The size that every client's update has, or its measurements; 0 where the run has no model yet.
    func plannedByteCount(of run: RunState, isEvaluation: Bool) -> Int {
        guard !isEvaluation else { return EvaluationResult.privateByteCount }
        let id = run.record.id
        if let known = plannedByteCounts[id] { return known }
        guard let layout = try? uploadLayout(of: id), let base = run.versions.first?.sha256 else { return 0 }
        let metadata = UpdateMetadata.planned(run.specification, baseSHA256: base)
        let count = UpdateEncoder(
            run.specification.training.encoding,
            metadata: metadata,
            seed: 0,
            hasFixedLength: true
        ).byteCount(of: layout)
        plannedByteCounts[id] = count
        return count
    }
}
