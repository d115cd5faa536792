import Foundation
import Tensors
import WireFormat

extension AssignmentBody {
    /// What the server knows of an assignment beside its run.
    struct Sources {
        var layout: ParameterLayout
        /// The update's tensors, if they are not the model's.
        var updateLayout: ParameterLayout?
        /// The size of the server's control variate.
        var controlByteCount: Int?
        var base: Model?
        var ledgerHead: PopulationLedgerHead?
        var stateGeneration: Int?
        var plannedByteCount: Int?
    }

    /// An assignment as its client is told.
    ///
    /// - Parameters:
    ///   - record: The assignment.
    ///   - run: Its run.
    ///   - sources: What is known beside them.
    ///   - now: The time.
    /// - Throws: ``CoordinationError`` `model_missing`.
    init(_ record: AssignmentRecord, _ run: RunState, _ sources: Sources, at now: Date) throws(CoordinationError) {
        guard record.baseVersion < run.versions.count else {
            throw CoordinationError(.unavailable, "model_missing", "the run has no model yet")
        }
        let version = run.versions[record.baseVersion]
        let specification = run.specification
        var training = specification.training
        if let steps = record.maxSteps { training.limits.maxSteps = steps }
        // What is measured is the model itself.
        let encoding = record.isEvaluation ? nil : training.modelEncoding.flatMap { $0 == .f32 ? nil : $0 }
        var privacy = specification.privacy
        if let norm = version.clippingNorm { privacy.clipping.norm = norm }
        let target = specification.cohort.targetSeconds
        if target > 0 {
            // Steps come from the speed that was measured; time bounds them if there is none yet, or it has dropped.
            let seconds = max(0.01, record.maxSteps == nil ? target : 2 * target)
            training.limits.maxSeconds = min(training.limits.maxSeconds ?? seconds, seconds)
        }
        self.init(
            id: record.id,
            run: record.runId,
            round: abs(record.round),
            attempt: record.attempt,
            state: record.state,
            model: .init(
                version: version.version,
                url: Endpoints.weights(RunReference(record.runId), VersionReference(version.version))
                    .with("encoding", encoding).target,
                sha256: version.sha256,
                bytes: version.bytes,
                encoding: encoding
            ),
            architecture: run.assignedModel,
            training: training,
            privacy: privacy,
            maxParticipations: specification.cohort.maxParticipations,
            tensors: sources.layout,
            updateTensors: sources.updateLayout,
            control: version.controlSha256.map { sha256 in
                .init(
                    version: version.version,
                    url: Endpoints.controlVariate(RunReference(record.runId), VersionReference(version.version)).target,
                    sha256: sha256,
                    bytes: sources.controlByteCount ?? version.bytes
                )
            },
            updateUrl: Endpoints.putUpdate(AssignmentReference(record.id)).target,
            seed: String(Self.seed(of: record.id)),
            deadline: record.deadline.wireTimestamp,
            deadlineInS: max(0, record.deadline.timeIntervalSince(now)),
            kind: record.isEvaluation ? .evaluate : specification.analytics == nil ? .train : .analyze,
            leaseS: record.leaseUntil.map { max(0, $0.timeIntervalSince(now)) }
        )
        base = sources.base
        if specification.aggregation.weighting == .examples {
            weightUnit = specification.aggregation.weightUnit
            // A multiple of the cohort's median is nobody's business but the server's.
            exampleCap = specification.aggregation.exampleCap.number.map { Int($0) }
        }
        cohortMinimum = record.isEvaluation ? specification.evaluation.minimum : specification.cohort.minimum
        valueBound = specification.aggregation.valueBound
        if record.state == .accepted { roundCommitted = run.hasCommitted(record) }
        if record.isEvaluation { setRelease(of: specification) }
        ledgerHead = sources.ledgerHead
        stateGeneration = sources.stateGeneration
        updateBytes = sources.plannedByteCount
    }

    /// Tells a client by what terms its measurements are published.
    private mutating func setRelease(of specification: RunSpecification) {
        guard specification.hasPrivateEvaluation else { return }
        let evaluation = specification.evaluation
        privacy.mechanism = .gaussian
        if privacy.clipping.policy == .l1 { privacy.clipping.policy = .flat }
        privacy.noiseMultiplier = evaluation.noiseMultiplier ?? 0
        maxParticipations = evaluation.maxParticipations ?? 0
        release = .init(metrics: evaluation.metrics ?? [], lossBound: evaluation.lossBound ?? 0)
    }

    private static func seed(of id: String) -> UInt64 {
        UInt64(Secrets.sha256(Array(id.utf8)).prefix(16), radix: 16) ?? 0
    }
}
