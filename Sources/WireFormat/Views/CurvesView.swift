/// A run's history as curves whose size does not depend on how long the run is.
package struct CurvesView: Codable, Equatable, Sendable {
    package var run: String
    /// The last committed round that the curves contain; 0 before the first.
    package var throughRound: Int
    package var series: [CurveView]
    /// The best version by each measurement that says what is better, the one that counts first.
    package var best: [BestView]
    /// All attempts of the rounds up to `throughRound`.
    package var totals: CurveTotals
    /// Half of the committed rounds took no longer; `null` before the first.
    package var medianSeconds: Double?

    package init(
        run: String,
        throughRound: Int,
        series: [CurveView],
        best: [BestView],
        totals: CurveTotals,
        medianSeconds: Double? = nil
    ) {
        self.run = run
        self.throughRound = throughRound
        self.series = series
        self.best = best
        self.totals = totals
        self.medianSeconds = medianSeconds
    }
}

/// One value by round.
package struct CurveView: Codable, Equatable, Sendable {
    /// `epsilon`, `bytes_up`, `bytes_down`, `seconds`, or what was measured, such as `accuracy`.
    package var name: String
    /// Who measured, where it is a measurement.
    package var source: String?
    /// `[round, value]`; version 0 is round 0.
    package var points: [[Double]]

    package init(
        name: String,
        source: String? = nil,
        points: [[Double]]
    ) {
        self.name = name
        self.source = source
        self.points = points
    }
}

/// The version that did best by one measurement.
package struct BestView: Codable, Equatable, Sendable {
    package var name: String
    package var source: String
    package var version: Int
    package var value: Double

    package init(
        name: String,
        source: String,
        version: Int,
        value: Double
    ) {
        self.name = name
        self.source = source
        self.version = version
        self.value = value
    }
}

/// Sums over a run.
package struct CurveTotals: Codable, Equatable, Sendable {
    /// `nil` where the number of clients of a round is secret, like the bytes down.
    package var bytesUp: Int?
    package var bytesDown: Int?
    package var attempts: Int
    package var abandoned: Int

    package init(
        bytesUp: Int? = nil,
        bytesDown: Int? = nil,
        attempts: Int,
        abandoned: Int
    ) {
        self.bytesUp = bytesUp
        self.bytesDown = bytesDown
        self.attempts = attempts
        self.abandoned = abandoned
    }
}
