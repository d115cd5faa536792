import WireFormat

/// What a claim is made of: the first so many of a population's own rows.
///
/// Rows are only ever appended.
struct ClaimPlace: Hashable, Sendable {
    var population: String
    var rowCount: Int
}

/// Has the claim of a version made once for all who ask for it meanwhile; claims are made at the ``ArithmeticDesk``, where each caller has
/// few places.
actor ClaimDesk {
    let desk: ArithmeticDesk
    private var open: [ClaimPlace: Task<PrivacyClaim?, any Error>] = [:]

    init(_ desk: ArithmeticDesk) { self.desk = desk }

    /// Claims that are being made, and those that wait for it.
    var waitingCount: Int { open.count }

    /// Has a claim made in the caller's turn; whoever asks for one that is being made waits for it.
    ///
    /// - Throws: ``CoordinationError`` `claims_busy`, which is temporary, and what `making` throws.
    func claim(
        of place: ClaimPlace,
        making: @escaping @Sendable () async throws -> PrivacyClaim?
    ) async throws -> PrivacyClaim? {
        if let task = open[place] { return try await task.value }
        let task = Task { [self] in
            defer { open[place] = nil }
            return try await desk.inTurn(making)
        }
        open[place] = task
        return try await task.value
    }
}
