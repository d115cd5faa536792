import DifferentialPrivacy
import SecureAggregation
import Tensors
import WireFormat

/// The device's own record of what its reports have cost, kept whatever the server keeps.
///
/// An event is written before noise is drawn, and before an update can leave the device: the ledger may count one that never
/// left, and never misses one. Of one assignment there is one event, however often the work was begun again.
struct ClientLedger: Codable, Equatable, Sendable {
    struct Event: Codable, Equatable, Sendable {
        /// The assignment's id; absent in events of older versions.
        var assignment: String?
        var run: String
        var round: Int
        /// A word that an earlier or later version of this program may have written.
        var mode: PeerWord<PrivacyMode>
        var noiseMultiplier: Double
        /// `gaussian` where absent.
        var mechanism: PeerWord<MechanismWord>?
        /// Coefficients of correlated noise.
        var band: Int?
        var parameterCount: Int?
        /// Of votes: from which noised count on a prefix is published.
        var threshold: Double?
        /// Of a masked update: the helper's domain, whose noise the event counts.
        var domain: String?
        /// Of a masked update: SHA-256 of the session's document, hexadecimal; each session may make a sum of its own.
        var session: String?
        /// Whether its report has had its end: the same assignment is not worked on again, whoever hands it out.
        var isFinished: Bool?

        /// The event of an assignment.
        ///
        /// Of a masked update z is Σ*/K of the helper's session: the noise that the server cannot take off. The server's own noise
        /// protects from readers of models, and is not counted.
        init(_ assignment: Assignment, session: HelperSession? = nil) {
            self.assignment = assignment.id.text
            run = assignment.run.text
            round = assignment.round
            mode = .known(assignment.privacy.mode)
            noiseMultiplier = session?.noiseMultiplier ?? assignment.privacy.noiseMultiplier
            domain = session?.document.domain
            self.session = session?.document.session.hexadecimal
            mechanism = .known(assignment.privacy.mechanism.name)
            band = assignment.privacy.band
            threshold = assignment.privacy.threshold
            parameterCount =
                assignment.release.map { $0.metrics.count + 1 }
                ?? (assignment.updateTensors ?? assignment.tensors).parameterCount
        }

        /// Whether both name the same terms, whatever their assignments.
        func hasTerms(of other: Event) -> Bool {
            var (first, second) = (self, other)
            (first.assignment, first.isFinished) = (nil, nil)
            (second.assignment, second.isFinished) = (nil, nil)
            return first == second
        }

        /// What it costs one client that takes the server's word for nothing but the noise: no sampling, no cap.
        fileprivate func release() throws(PrivacyError) -> CappedRelease {
            switch mechanism ?? .known(.gaussian) {
            case .known(.gaussian):
                return CappedRelease(.gaussian(noiseMultiplier: noiseMultiplier), coordinateCount: count)
            case .known(.laplace): return CappedRelease(.laplace(scale: noiseMultiplier))
            case .known(.discreteGaussian):
                return CappedRelease(.discreteGaussian(noiseMultiplier: noiseMultiplier))
            case .known(.bandedMatrix): return Self.release(ofMeeting: [self])
            case .known(.gaussianSparseHistogram):
                // As the server charges it: two worlds differ in one noised count.
                let histogram = try GaussianSparseHistogram(
                    noiseMultiplier: noiseMultiplier,
                    threshold: threshold ?? 0
                )
                return CappedRelease(
                    .gaussian(noiseMultiplier: noiseMultiplier),
                    coordinateCount: 1,
                    failureDelta: histogram.failureDelta
                )
            case .known(.sampleAndThreshold), .unknown:
                throw .unsupportedEvent(event: mechanism?.text ?? "", accountant: "client")
            }
        }

        private var count: Int { parameterCount ?? 0 }

        /// Participations in one run with correlated noise of which each is less than the band after the one before: their columns of the
        /// matrix meet, so that they cost what the sum of the columns does.
        fileprivate static func release(ofMeeting events: [Event]) -> CappedRelease {
            let band = events.reduce(1) { max($0, $1.width) }
            let coefficients = BandedReleases.coefficients(band: band)
            var sum: [Int: Double] = [:]
            for event in events {
                for (distance, coefficient) in coefficients.enumerated() {
                    sum[event.round &+ distance, default: 0] += coefficient
                }
            }
            let square = sum.values.reduce(0) { $0 + $1 * $1 }
            let least = events.reduce(Double.infinity) { min($0, $1.noiseMultiplier) }
            let coordinates = events.reduce(0) { $0 + $1.count }
            return CappedRelease(
                .gaussian(noiseMultiplier: least / square.squareRoot()),
                count: 1,
                coordinateCount: coordinates
            )
        }

        /// Whether its noise is correlated with that of other rounds.
        fileprivate var isBanded: Bool { mechanism?.is(.bandedMatrix) ?? false }

        /// Rounds in which a participation has a part.
        fileprivate var width: Int { max(1, min(64, band ?? 64)) }
    }

    /// Participations in runs with correlated noise and their places, those together that meet.
    ///
    /// The server says how far apart they are to be; the device knows its own rounds, and does not take its word.
    private static func meetings(of events: [Event]) -> [[(place: Int, event: Event)]] {
        let banded = events.enumerated().filter { $0.element.isBanded }
            .map { (place: $0.offset, event: $0.element) }
        return Dictionary(grouping: banded, by: \.event.run).values.flatMap { events in
            let band = events.reduce(1) { max($0, $1.event.width) }
            var meetings: [[(place: Int, event: Event)]] = []
            for item in events.sorted(by: { $0.event.round < $1.event.round }) {
                if let last = meetings.last?.last, item.event.round - last.event.round < band {
                    meetings[meetings.count - 1].append(item)
                } else {
                    meetings.append([item])
                }
            }
            return meetings
        }
    }

    private(set) var events: [Event] = []
    /// The places of events in ``events``, by assignment.
    private var places: [String: Int] = [:]
    /// How many events each run has.
    private var participations: [String: Int] = [:]

    /// Events without privacy that are counted only, by run: see ``compact()``.
    var counted: [RunCount]?

    /// Whether the device was ever given work.
    var hasTakenPart: Bool { !events.isEmpty || !(counted ?? []).isEmpty }

    init() {}

    private enum CodingKeys: String, CodingKey { case events, counted }

    init(from decoder: any Swift.Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        counted = try fields.decodeIfPresent([RunCount].self, forKey: .counted)
        keep(try fields.decode([Event].self, forKey: .events))
    }

    /// Puts other events in the place of those that are there.
    mutating func keep(_ kept: [Event]) {
        (events, places, participations) = (kept, [:], [:])
        for (place, event) in events.enumerated() { index(event, at: place) }
    }

    private mutating func index(_ event: Event, at place: Int) {
        if let assignment = event.assignment, places[assignment] == nil { places[assignment] = place }
        participations[event.run, default: 0] += 1
    }

    /// The event of an assignment.
    func event(of assignment: String) -> Event? { places[assignment].map { events[$0] } }

    /// Adds an event, unless the assignment has one already.
    ///
    /// - Returns: Whether it was added.
    mutating func record(_ event: Event) -> Bool {
        if let assignment = event.assignment, places[assignment] != nil { return false }
        index(event, at: events.count)
        events.append(event)
        if event.mode.is(.none) { compact() }
        return true
    }

    /// Notes that an assignment's report has had its end.
    ///
    /// - Returns: Whether that was new.
    mutating func finish(_ assignment: String) -> Bool {
        guard let place = places[assignment], events[place].isFinished != true else { return false }
        events[place].isFinished = true
        return true
    }

    /// Judges one more event by the policy.
    ///
    /// - Parameters:
    ///   - assignment: The work.
    ///   - policy: What the device's owner allows.
    ///   - payer: The assignment whose event pays for this work too: a further turn that sends the report of an earlier one.
    ///   - session: The helper's session that the update is masked for.
    /// - Returns: Why the policy does not allow it; `nil` when it does.
    func refusal(
        of assignment: Assignment,
        policy: ClientPrivacyPolicy,
        paidBy payer: String? = nil,
        session: HelperSession? = nil
    ) -> String? {
        let event = Event(assignment, session: session)
        if let known = self.event(of: assignment.id.text) {
            // One event pays for one report under the terms that it names: a server that hands out an id again gets no second one.
            guard known.hasTerms(of: event) else { return "this assignment was begun under other terms" }
            guard known.isFinished != true else { return "the report for this assignment was made already" }
        }
        // What was begun before a kill, or in an earlier turn, is in the ledger already, and costs nothing more.
        let place = places[payer ?? assignment.id.text]
        guard policy.acceptedModes.contains(event.mode.text) else {
            return "mode \(event.mode) is not accepted on this device"
        }
        if let leak = Self.leak(of: assignment) { return leak }
        if assignment.kind == .evaluate && !event.mode.is(.none)
            && (!event.mode.is(.central) || assignment.release == nil || event.noiseMultiplier < 0.1)
        {
            return "sums over private data are asked for that mode \(event.mode) does not protect"
        }
        let isCounted = place.map { events[$0].run == event.run } ?? false
        let count = participations[event.run, default: 0] - (isCounted ? 1 : 0) + countedEvents(of: event.run)
        guard count < policy.maxParticipations else { return "this device has taken part \(count) times already" }
        if let session, let refusal = refusal(of: event, in: session) { return refusal }
        if policy.minimumCohort > 0 {
            guard let minimum = assignment.cohortMinimum, minimum >= policy.minimumCohort else {
                let stated = assignment.cohortMinimum.map { "\($0) clients" } ?? "a number that it does not state"
                return "the round publishes what \(stated) sent, this device wants \(policy.minimumCohort)"
            }
        }
        // What is no number is no permission.
        guard !event.mode.is(.none), !(policy.maxEpsilon >= .greatestFiniteMagnitude) else { return nil }
        do {
            var counted = events.enumerated().filter { $0.offset != place && $0.element.mode == event.mode }.map(
                \.element
            )
            counted.append(event)
            let total = try epsilon(of: counted, delta: policy.delta)
            return total <= policy.maxEpsilon ? nil : "epsilon would reach \(total) of \(policy.maxEpsilon)"
        } catch {
            return "what it costs cannot be computed: \(error)"
        }
    }

    /// Why a masked update would be one more than the session's document allows.
    ///
    /// Each session that an update was masked for counts, also another attempt at the same round: the device cannot see whether the
    /// helper made a sum of the one before.
    private func refusal(of event: Event, in session: HelperSession) -> String? {
        let sessions = Set(
            events.lazy.filter { $0.run == event.run && ($0.session == nil || $0.session != event.session) }
                .map { $0.session ?? "round \($0.round)" }
        )
        let count = sessions.count + countedEvents(of: event.run)
        guard count >= Int(session.document.maxParticipations) else { return nil }
        return "this device has taken part in \(count) sessions of the run, and the helper's session allows "
            + "\(session.document.maxParticipations) (max_participations)"
    }

    /// Why terms would let out more than they say, whatever the server that sends them thinks of it.
    private static func leak(of assignment: Assignment) -> String? {
        let privacy = assignment.privacy
        if privacy.isAdaptive && privacy.mode != .central {
            return "clipping policy adaptive would tell in mode \(privacy.mode) whether the update was within the norm"
        }
        guard privacy.mode != .none else { return nil }
        if privacy.isBanded && privacy.mode != .central {
            return "mechanism banded_matrix adds no noise on the device in mode \(privacy.mode)"
        }
        if privacy.addsNoise && !(privacy.noiseMultiplier >= 0.1) {
            return "a noise multiplier of \(privacy.noiseMultiplier) protects nothing"
        }
        if privacy.areVotes && assignment.kind != .analyze {
            return "mechanism \(privacy.mechanism.name) protects votes, and something else is asked for"
        }
        return nil
    }

    private func epsilon(of events: [Event], delta: Double) throws(PrivacyError) -> Double {
        // In the order in which they began: the first one decides how δ is divided.
        var placed: [(place: Int, release: CappedRelease)] = []
        for (place, event) in events.enumerated() where !event.isBanded {
            placed.append((place, try event.release()))
        }
        for meeting in Self.meetings(of: events) {
            placed.append((meeting.map(\.place).min() ?? 0, Event.release(ofMeeting: meeting.map(\.event))))
        }
        let releases = placed.sorted { $0.place < $1.place }.map(\.release)
        // Terms follow what was published before: only filters may judge.
        let start = releases.first.map { BudgetArithmetic.start(with: $0, isAdaptive: true) } ?? .exact
        let rule = BudgetArithmetic.enforcingRule(of: releases, isAdaptive: true, start: start)
        return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
    }
}
