import WireFormat

/// What a claim is made of: the first so many of a population's own rows.
///
/// Rows are only ever appended.
struct ClaimPlace: Hashable, Sendable {
    var population: String
    var rowCount: Int
}

/// Has claims of published versions made one at a time, beside the coordinator: each takes as long as a round's reservation, and whoever
/// may read models may ask for any version.
actor ClaimDesk {
    /// So many may wait; the next one is told to come again.
    static let waitingLimit = 32

    private var open: [ClaimPlace: Task<PrivacyClaim?, any Error>] = [:]
    private var last: Task<PrivacyClaim?, any Error>?

    /// Claims that are being made, and those that wait for it.
    var waitingCount: Int { open.count }

    /// Has a claim made when those before it are; whoever asks for one that is being made waits for it.
    ///
    /// - Throws: ``CoordinationError`` `claims_busy`, which is temporary, and what `making` throws.
    func claim(
        of place: ClaimPlace,
        making: @escaping @Sendable () async throws -> PrivacyClaim?
    ) async throws -> PrivacyClaim? {
        if let task = open[place] { return try await task.value }
        guard open.count < Self.waitingLimit else {
            throw CoordinationError(
                .unavailable,
                "claims_busy",
                "what is proven of \(open.count) other versions is being computed; ask again later"
            )
        }
        let before = last
        let task = Task { [self] in
            _ = await before?.result
            defer { open[place] = nil }
            return try await making()
        }
        open[place] = task
        last = task
        return try await task.value
    }
}
