import WireFormat

extension UpdateScoreView {
    init(_ record: UpdateScoreRecord) {
        self.init(
            run: record.runId,
            round: record.round,
            attempt: record.attempt,
            assignment: record.assignmentId,
            client: record.clientId,
            numExamples: record.exampleCount,
            norm: record.norm,
            normRatio: record.normRatio,
            cosine: record.cosine,
            counted: record.counted,
            reason: record.reason
        )
    }
}
