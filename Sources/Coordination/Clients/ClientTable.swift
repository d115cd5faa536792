import Foundation
import WireFormat

/// Every client by its id and in the order of registration, with what is asked about all of them kept as they change.
///
/// A change costs the same however many clients there are, and nothing that is asked walks them.
struct ClientTable: Sendable {
    /// What a client counts as where states are shown.
    enum Kind: Sendable { case registered, worker, quarantined, revoked }

    private var records: [String: ClientRecord] = [:]
    /// Ids by the key of the registration that made them.
    private var byRegistration: [String: String] = [:]
    /// When clients were last seen.
    private(set) var presence = Presence()
    /// Clients that stated a generation which this server has not given, since it started.
    private(set) var ahead: Set<String> = []
    private let profiles = ClientProfileCache()
    /// Ids, those first that registered first; a client is never removed.
    private(set) var order: [String] = []
    /// Clients of each population by state.
    private(set) var stateCounts: [String: [ClientStanding: Int]] = [:]
    private var kindCounts: [Kind: Int] = [:]
    private var tiers = LabelCounts()
    private var speeds: [String: SpeedHistogram] = [:]

    var count: Int { records.count }

    /// A client; a changed one is put back.
    subscript(id: String) -> ClientRecord? {
        get {
            WorkCount.note()
            return records[id]
        }
        set { if let newValue { set(newValue) } }
    }

    /// Takes space for so many clients at once.
    mutating func reserve(_ clientCount: Int) {
        records.reserveCapacity(clientCount)
        order.reserveCapacity(clientCount)
        presence.reserve(clientCount)
    }

    /// Forgets every client before the store is read again; what is not stored, such as when each was seen, stays.
    mutating func removeAll() {
        var (seen, known) = (presence, ahead)
        seen.forgetWorkers()
        self = ClientTable()
        swap(&presence, &seen)
        swap(&ahead, &known)
    }

    /// The client that a registration made.
    func id(registration key: String) -> String? { byRegistration[key] }

    /// What is known of a client, parsed once.
    func profile(of client: ClientRecord) -> EligibilityExpression.Subject { profiles.profile(of: client) }

    /// How many clients are of a kind.
    func count(of kind: Kind) -> Int { kindCounts[kind] ?? 0 }

    /// Clients that have not been revoked, by the value of their label `tier`; those of rare values together as `other`.
    var tierCounts: [String: Int] { tiers.counts }

    /// Clients of a population that have not been revoked.
    func presentCount(population: String) -> Int {
        (stateCounts[population] ?? [:]).reduce(0) { $0 + ($1.key == .revoked ? 0 : $1.value) }
    }

    /// The measured speeds of a population's clients that have not been revoked.
    func speeds(population: String) -> SpeedHistogram { speeds[population] ?? SpeedHistogram() }

    /// So many clients from a place in the order on.
    func part(from place: Int, limit: Int) -> [ClientRecord] {
        let part = order.dropFirst(place).prefix(limit).compactMap { records[$0] }
        WorkCount.note(part.count)
        return part
    }

    /// Adds a client, or replaces what was known of it.
    mutating func set(_ record: ClientRecord) {
        let before = records.updateValue(record, forKey: record.id)
        if let before { count(before, by: -1) } else { order.append(record.id) }
        count(record, by: 1)
        if let key = record.registrationKey { byRegistration[key] = record.id }
        let isWorker = record.kind == .worker
        if isWorker != (before?.kind == .worker) { presence.setWorker(record.id, isWorker) }
    }

    /// Notes that a client is there now.
    mutating func noteSeen(_ id: String, at time: Date) {
        guard let client = records[id] else { return }
        presence.note(id, population: client.populationId, isWorker: client.kind == .worker, at: time)
    }

    /// Notes that a client knows of more assignments than this server has given it.
    ///
    /// - Returns: Whether it is the first such client since the server started.
    mutating func noteAhead(_ id: String) -> Bool { ahead.insert(id).inserted && ahead.count == 1 }

    /// Notes that a client has acted on its last assignment, so that it has it.
    mutating func acknowledgeGeneration(of id: String) { records[id]?.generation?.acknowledge() }

    private mutating func count(_ record: ClientRecord, by change: Int) {
        stateCounts[record.populationId, default: [:]][record.state, default: 0] += change
        kindCounts[record.kind, default: 0] += change
        guard record.state != .revoked else { return }
        if let tier = record.tierLabel { tiers.count(tier, by: change) }
        if let seconds = record.secondsPerAssignment {
            speeds[record.populationId, default: SpeedHistogram()].count(seconds, by: change)
        }
    }
}

extension ClientRecord {
    var kind: ClientTable.Kind {
        if state == .revoked { return .revoked }
        if quarantinedAt != nil { return .quarantined }
        return state == .registered ? .registered : .worker
    }

    /// The label `tier`, read without parsing the labels of clients that have none.
    fileprivate var tierLabel: String? {
        guard labels.contains("\"tier\""),
            let object = try? JSONDecoder().decode([String: String].self, from: Data(labels.utf8))
        else { return nil }
        return object["tier"]
    }
}

/// How many clients carry which value of a label: clients choose the values, so only so many are told apart.
private struct LabelCounts: Sendable {
    private static let valueLimit = 50
    private static let other = "other"

    /// Values stay here when nobody carries them any more, so that what was counted as `other` is never taken for them.
    private var table: [String: Int] = [:]

    var counts: [String: Int] { table.filter { $0.value > 0 } }

    mutating func count(_ value: String, by change: Int) {
        let isKnown = table[value] != nil || table.count < Self.valueLimit
        table[isKnown ? value : Self.other, default: 0] += change
    }
}

/// How many clients need how long for an assignment, to within 2 per cent, so that tiers can be cut without sorting clients.
struct SpeedHistogram: Equatable, Sendable {
    /// Bins a factor of two is divided into.
    private static let resolution = 32.0

    /// Counts by `floor(resolution * log2(seconds))`.
    private var counts: [Int: Int] = [:]

    /// Clients that were measured.
    private(set) var total = 0

    mutating func count(_ seconds: Double, by change: Int) {
        let bin = Self.bin(seconds)
        let left = (counts[bin] ?? 0) + change
        counts[bin] = left == 0 ? nil : left
        total += change
    }

    /// Bounds that cut the clients into groups of like size, slowest first.
    ///
    /// - Complexity: O(b log b) for b bins that are in use: some hundreds, whatever the number of clients.
    func bounds(tiers: Int) -> [Double] {
        guard tiers > 1, total >= tiers else { return [] }
        var bounds: [Double] = []
        var passed = 0
        for (bin, count) in counts.sorted(by: { $0.key > $1.key }) {
            passed += count
            // Who is in the bin is not slower than its upper edge, as nobody is slower than the bound of its own tier.
            while bounds.count < tiers - 1, passed > (bounds.count + 1) * total / tiers {
                bounds.append(exp2(Double(bin + 1) / Self.resolution))
            }
        }
        return bounds
    }

    private static func bin(_ seconds: Double) -> Int {
        guard seconds.isFinite else { return 0 }
        return Int((resolution * log2(min(1e12, max(1e-6, seconds)))).rounded(.down))
    }
}

extension [ClientStanding: Int] {
    /// As documents have it: by word, without zeros.
    var shown: [String: Int] {
        filter { $0.value > 0 }.reduce(into: [:]) { result, count in result[count.key.rawValue] = count.value }
    }
}
