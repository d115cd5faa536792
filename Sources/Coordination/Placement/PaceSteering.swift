import WireFormat

/// When clients that got no work should ask again.
///
/// A small population is brought together: everyone is asked to come when work is expected, so that a round finds its cohort
/// at once. A large one is spread so that the server sees at most ``targetRate`` check-ins a second. Source: Bonawitz et al.
/// 2019, arXiv:1902.01046, section 2.3. The client, or `Retry-After`, draws its moment from the window.
enum PaceSteering {
    /// Check-ins a second that a large population should make.
    static let targetRate = 50.0
    static let longest = 3600.0

    /// The window for one client, when work may be there in so many seconds.
    ///
    /// `population` counts the clients seen lately, `wanted` the places that will be open then (0 where nothing is known to
    /// come), and `jitter` is the shortest width of the window.
    static func window(
        secondsUntilWork seconds: Double,
        population: Int,
        wanted: Int,
        jitter: Double = 4
    ) -> CheckInResponse.RetryWindow {
        let start = min(longest, max(0.1, seconds))
        let isLarge = population > max(4 * wanted, Int(targetRate))
        let spread = isLarge ? Double(population) / targetRate : 0
        return .init(minS: start, maxS: min(2 * longest, start + max(jitter, spread)))
    }
}
