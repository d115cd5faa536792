package import Foundation
package import SecureAggregation
package import Tensors
package import UpdateCompression
package import WireFormat

/// What intake needs to check an upload by.
package struct UploadTerms: Sendable {
    package var assignmentID: String
    package var runID: String
    package var spoolPath: String
    /// Where an upload in parts gathers: one file for the assignment.
    package var partialPath: String
    /// Where it lies while it is judged.
    package var judgedPath: String
    package var byteLimit: Int
    /// With privacy the size that everybody's update has; `nil`: any up to the limit.
    package var plannedByteCount: Int?
    /// Until when its bytes may come.
    package var deadline: Date
    /// Whether they may come now: withdrawn when the update is not wanted any more.
    package var permit = UploadPermit()
    package var layout: ParameterLayout
    package var baseSHA256: String
    package var kind = Submission.delta
    package var valueBound: Double
    /// What the update's count is cut at before it is kept: a number where there is privacy; `nil`: nothing.
    package var exampleCap: Int?
    /// What the count is of.
    package var weightUnit = WeightUnit.examples
    /// Whether the count weighs the update.
    package var weighsByCount = false
    /// Whether the sums of metrics that come with it are judged: not in private runs, which drop them.
    package var judgesMetrics = false
    /// How the run wants updates to be written.
    package var encoding: UpdateEncoding
    /// Set when an update was accepted before: the same bytes get the same answer.
    ///
    /// Without hash and size once a private round has ended; then nothing can be compared.
    package var accepted: UpdateReceipt?
    /// The hash of the update that was accepted before, while it is known.
    package var acceptedSHA256: String? { accepted.flatMap { $0.compared == false ? nil : $0.sha256 } }
    /// Whether the upload is a JSON document of metric sums, and no update.
    package var isEvaluation = false
    /// Rates that an evaluation's sums must have: those that are released with noise.
    ///
    /// Then the sums are a file until their round ends, as updates are, and never in the database.
    package var releasedMetrics: [String] = []
    /// Fewer examples are not enough to count.
    package var minimumExamples = 1
    /// Whether the update says if its norm was within the bound before it was clipped.
    package var needsClippingBit = false
    /// What a count or a vote must be, in an analytics run.
    package var answer: AnalyticsAnswer?
    /// Whether a masked update is expected.
    package var isMasked = false
    /// What a masked update looks like, in a protected run: nothing else of it is looked at; absent where one was accepted.
    package var masked: MaskedUpdateFile?
}

/// What clients of an analytics run may send.
package enum AnalyticsAnswer: Equatable, Sendable {
    /// At most so many ones among zeros.
    case counts(limit: Int)
    /// A parent's place among so many, and a scalar.
    case vote(placeLimit: Int)
    /// Noised counts: any number.
    case noise
}

extension UploadTerms {
    /// By what an update is judged.
    ///
    /// - Parameters:
    ///   - record: Its assignment.
    ///   - run: The run.
    ///   - layout: The tensors of an update; absent where one was accepted, and nothing is judged any more.
    ///   - plannedByteCount: See ``UploadTerms/plannedByteCount``.
    ///   - files: Where updates lie.
    ///   - modelByteLimit: The largest update that the server takes.
    ///   - accepted: What was accepted for the assignment before.
    ///   - now: The time.
    init(
        _ record: AssignmentRecord,
        _ run: RunState,
        layout: ParameterLayout?,
        plannedByteCount: Int?,
        files: UpdateFiles,
        modelByteLimit: Int,
        accepted: UpdateReceipt?,
        at now: Date
    ) {
        let specification = run.specification
        let isOpen = specification.privacy.mode == .none
        let encoding = specification.training.encoding
        assignmentID = record.id
        runID = record.runId
        spoolPath = files.blobs.spoolPath("\(record.id)-\(Secrets.identifier("up")).part")
        partialPath = files.partialPath(record.id)
        judgedPath = files.judgedPath(record.id)
        let longest = layout.map {
            encoding.byteLimit(parameterCount: $0.parameterCount, tensorCount: $0.tensors.count)
                + (64 << 10) + SafetensorsHeader.headerByteLimit
        }
        byteLimit = min(modelByteLimit, longest ?? .max)
        self.plannedByteCount = plannedByteCount
        // A client that repeats what was accepted is told so after the deadline as well, and has an hour to say it.
        deadline = record.state == .accepted ? now.addingTimeInterval(3600) : record.deadline
        self.layout = layout ?? ParameterLayout([])
        baseSHA256 = run.versions[record.baseVersion].sha256
        kind = specification.training.submit
        valueBound = specification.aggregation.valueBound
        exampleCap = isOpen ? nil : specification.aggregation.exampleCap.number.map { Int($0) }
        weightUnit = specification.aggregation.weightUnit
        weighsByCount = specification.aggregation.weighting == .examples
        judgesMetrics = isOpen
        self.encoding = encoding
        self.accepted = accepted
        isEvaluation = record.isEvaluation
        releasedMetrics =
            record.isEvaluation && specification.hasPrivateEvaluation ? specification.evaluation.metrics ?? [] : []
        // A device whose data gave nothing says 0 if something is promised about them.
        minimumExamples = specification.isPrivate ? 0 : record.isEvaluation ? 1 : specification.cohort.minExamples
        needsClippingBit = specification.privacy.isAdaptive && !record.isEvaluation
        answer = specification.analyticsAnswer
        guard !record.isEvaluation else { return }
        isMasked = specification.isProtected
        guard let layout else { return }
        masked = specification.maskedUpdateFile(coordinateCount: layout.parameterCount)
        if let masked { byteLimit = min(modelByteLimit, masked.byteCount) }
    }
}

extension RunSpecification {
    /// What clients may send.
    var analyticsAnswer: AnalyticsAnswer? {
        guard let analytics else { return nil }
        switch analytics.method {
        case .votes(let prefixLimit), .triehh(_, _, let prefixLimit): return .vote(placeLimit: prefixLimit)
        case .histogram(let wordsPerClient, _):
            return privacy.mode == .local ? .noise : .counts(limit: wordsPerClient)
        }
    }
}
