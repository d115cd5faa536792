import SecureAggregation
import WireFormat

extension ProtectionPlan {
    /// What a protected run comes to.
    ///
    /// - Parameters:
    ///   - specification: The run; it is protected.
    ///   - parameterCount: Of its model.
    ///   - projection: What the server charges, by its own noise alone; `nil` without privacy.
    ///   - readers: The same with both parties' noise.
    /// - Throws: ``CoordinationError`` `protection_impossible`.
    init?(
        _ specification: RunSpecification,
        parameterCount: Int,
        _ projection: PrivacyProjection?,
        readers: PrivacyProjection?
    ) throws(CoordinationError) {
        guard let protection = specification.protection,
            let grid = try specification.protectionGrid(coordinateCount: parameterCount),
            let file = specification.maskedUpdateFile(coordinateCount: parameterCount)
        else { return nil }
        let isPrivate = specification.isPrivate
        let minimum = max(1, specification.cohort.minimum)
        self.init(
            kind: protection.kind,
            domain: protection.domain,
            bits: protection.bits,
            updateBytes: file.byteCount,
            step: grid.step,
            largestValue: grid.largestValue,
            largestShare: isPrivate ? grid.largestValue / specification.privacy.clipping.norm : nil,
            minimum: minimum,
            maximum: specification.protectedMaximum,
            noiseMultiplier: isPrivate ? grid.noiseMultiplier : nil,
            epsilonOfEachParty: projection?.epsilon,
            epsilonOfReaders: readers?.epsilon,
            claim: isPrivate
                ? "the server, the helper and each of them with any clients: z = \(Self.rounded(grid.noiseMultiplier)); readers of "
                    + "models: \(Self.rounded(grid.noiseMultiplier * 2.0.squareRoot())); server and helper together: nothing"
                : "no (epsilon, delta): an honest but curious server sees one sum over at least \(minimum) updates a round; server "
                    + "and helper together see every update"
        )
    }

    private static func rounded(_ value: Double) -> String { "\((value * 1000).rounded() / 1000)" }
}
