import Foundation
import WireFormat

/// Every token by the hash of its text, and by what else tokens are looked up: id, client and expiry.
///
/// A look-up or change costs the same however many tokens there are: each client may rotate its own, and register again.
struct TokenTable: Sendable {
    /// How many texts of one token, or tokens of one client, work at the same time: the newest and one before it.
    static let liveLimit = 2

    /// Seconds for which an operator's or an enrollment token is still listed after it has expired.
    static let retention = 7.0 * 86_400

    private(set) var records: [String: TokenRecord] = [:]
    /// Hashes of operators' and enrollment tokens by id, oldest text first.
    private var byID: [String: [String]] = [:]
    /// Hashes of clients' tokens by client, oldest first.
    private var byClient: [String: [String]] = [:]
    /// Hashes by the time from which nobody needs the record.
    private var removals = RemovalQueue()
    /// Ids of operators' and enrollment tokens in the order in which they were made, and each one's number in it.
    private var order: [(number: Int, id: String)] = []
    private var numbers: [String: Int] = [:]
    private var lastNumber = 0
    private var adminTextCount = 0
    /// When each operator's token was last used since the server started, by id.
    private var lastUses: [String: Date] = [:]
    /// By id, how many texts of an administrator's token do not expire.
    private var permanentAdmins: [String: Int] = [:]

    /// Texts that are known, expired ones among them.
    var count: Int { records.count }

    /// When a token was last used since the server started; of operators' tokens only.
    func lastUse(id: String) -> Date? { lastUses[id] }

    /// Notes that an operator's token is used.
    mutating func noteUse(id: String, at time: Date) { lastUses[id] = time }

    /// Forgets when tokens were used that are gone.
    mutating func forgetUses(ids: some Sequence<String>) {
        for id in ids where byID[id] == nil { lastUses[id] = nil }
    }

    /// Forgets every token before the store is read again; when each was used is not stored, and stays.
    mutating func removeAll() {
        let uses = lastUses
        self = TokenTable()
        lastUses = uses
    }

    /// Whether there is an administrator's token.
    var hasAdmin: Bool { adminTextCount > 0 }

    subscript(hash: String) -> TokenRecord? { records[hash] }

    /// Whether an administrator's token with another id than this one never expires.
    func hasPermanentAdmin(besides id: String) -> Bool {
        permanentAdmins.count > (permanentAdmins[id] == nil ? 0 : 1)
    }

    /// The texts of an operator's or enrollment token, oldest first.
    func texts(id: String) -> [TokenRecord] { (byID[id] ?? []).compactMap { records[$0] } }

    /// The tokens of a client, oldest first.
    func texts(client: String) -> [TokenRecord] { (byClient[client] ?? []).compactMap { records[$0] } }

    /// The texts that stand for the same caller, oldest first: those of one id, or all of a client's.
    func texts(like record: TokenRecord) -> [TokenRecord] {
        record.client.map { texts(client: $0) } ?? texts(id: record.id)
    }

    /// The tokens of a client's earlier registrations, which this one stands in the place of.
    func earlierRegistrations(than record: TokenRecord) -> [TokenRecord] {
        guard let client = record.client, byClient[client]?.count ?? 0 > 1 else { return [] }
        return texts(client: client).prefix { $0.hash != record.hash }.filter { $0.id != record.id }
    }

    /// The newest text of each operator's and enrollment token, in the order in which the tokens were made.
    ///
    /// - Parameters:
    ///   - number: The number of the token that was shown last; 0 begins with the oldest.
    ///   - limit: How many at most.
    /// - Returns: The records, and the number of the last of them where more follow.
    func listed(after number: Int, limit: Int) -> (records: [TokenRecord], next: Int?) {
        let start = place(after: number)
        let page = order[start...].prefix(limit)
        let next = start + page.count < order.count ? page.last?.number : nil
        return (page.compactMap { byID[$0.id]?.last.flatMap { records[$0] } }, next)
    }

    /// Every text of operators' and enrollment tokens; for the start of the server.
    var listedTexts: [TokenRecord] { order.flatMap { texts(id: $0.id) } }

    /// Hashes of expired records that nobody needs any more.
    func removable(at time: Date, limit: Int) -> [String] { removals.due(at: time, limit: limit) }

    /// Takes what a database holds.
    ///
    /// - Returns: Hashes that it need not hold: expired ones, and texts beyond the limit, which older versions had none of.
    mutating func load(_ stored: [TokenRecord], at time: Date) -> [String] {
        var unneeded: [String] = []
        var counts: [String: Int] = [:]
        var wanted: [TokenRecord] = []
        wanted.reserveCapacity(stored.count)
        records.reserveCapacity(stored.count)
        for record in stored {
            if let end = Self.removalTime(of: record), end < time {
                unneeded.append(record.hash)
            } else {
                counts[record.client ?? record.id, default: 0] += 1
                wanted.append(record)
            }
        }
        wanted.sort { $0.createdAt < $1.createdAt }
        for record in wanted {
            let key = record.client ?? record.id
            if let count = counts[key], count > Self.liveLimit {
                counts[key] = count - 1
                unneeded.append(record.hash)
            } else {
                set(record)
            }
        }
        return unneeded
    }

    /// Adds a token, or replaces the record with the same hash.
    mutating func set(_ record: TokenRecord) {
        let before = records.updateValue(record, forKey: record.hash)
        if let before { forgetTimes(of: before) }
        if let time = Self.removalTime(of: record) { removals.insert(record.hash, at: time) }
        if record.role == .admin {
            adminTextCount += 1
            if record.expiresAt == nil { permanentAdmins[record.id, default: 0] += 1 }
        }
        guard before == nil else { return }
        if let client = record.client {
            byClient[client, default: []].append(record.hash)
            return
        }
        byID[record.id, default: []].append(record.hash)
        if numbers[record.id] == nil {
            lastNumber += 1
            numbers[record.id] = lastNumber
            order.append((lastNumber, record.id))
        }
    }

    /// Removes a token.
    mutating func remove(_ hash: String) {
        guard let record = records.removeValue(forKey: hash) else { return }
        forgetTimes(of: record)
        if let client = record.client {
            let left = (byClient[client] ?? []).filter { $0 != hash }
            byClient[client] = left.isEmpty ? nil : left
            return
        }
        let left = (byID[record.id] ?? []).filter { $0 != hash }
        byID[record.id] = left.isEmpty ? nil : left
        guard left.isEmpty, let number = numbers.removeValue(forKey: record.id) else { return }
        // Moves the later ones by one place: a block copy, and operators' tokens are few.
        order.remove(at: place(after: number - 1))
    }

    // MARK: -

    private mutating func forgetTimes(of record: TokenRecord) {
        if let time = Self.removalTime(of: record) { removals.remove(record.hash, at: time) }
        guard record.role == .admin else { return }
        adminTextCount -= 1
        guard record.expiresAt == nil, let left = permanentAdmins[record.id] else { return }
        permanentAdmins[record.id] = left > 1 ? left - 1 : nil
    }

    /// The first place in the order with a greater number.
    private func place(after number: Int) -> Int {
        var (low, high) = (0, order.count)
        while low < high {
            let middle = (low + high) / 2
            if order[middle].number > number { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private static func removalTime(of record: TokenRecord) -> Date? {
        record.expiresAt.map { record.client == nil ? $0.addingTimeInterval(retention) : $0 }
    }
}

/// What is to be removed at which time, by the hour.
///
/// Adding and taking out cost the same however much waits: hours are few, and each has a set of its own.
private struct RemovalQueue: Sendable {
    private var hashes: [Int: Set<String>] = [:]
    /// The hours that have a set, the latest first.
    private var hours: [Int] = []

    mutating func insert(_ hash: String, at time: Date) {
        let hour = Self.hour(of: time)
        if hashes[hour]?.insert(hash) == nil {
            hashes[hour] = [hash]
            var place = hours.count
            while place > 0, hours[place - 1] < hour { place -= 1 }
            hours.insert(hour, at: place)
        }
    }

    mutating func remove(_ hash: String, at time: Date) {
        let hour = Self.hour(of: time)
        guard hashes[hour]?.remove(hash) != nil, hashes[hour]?.isEmpty == true else { return }
        hashes[hour] = nil
        hours.removeAll { $0 == hour }
    }

    /// What the oldest hours that have passed hold; an hour's end is waited for.
    func due(at time: Date, limit: Int) -> [String] {
        var found: [String] = []
        for hour in hours.reversed() {
            guard found.count < limit, hour < Self.hour(of: time) else { break }
            found += (hashes[hour] ?? []).prefix(limit - found.count)
        }
        return found
    }

    /// Clamped, so that no stored time is too much for it.
    private static func hour(of time: Date) -> Int {
        Int(min(1e9, max(0, (time.timeIntervalSince1970 / 3600).rounded(.down))))
    }
}

extension TokenRecord {
    /// The client whose token it is; `nil` for those of operators and for enrollment tokens.
    fileprivate var client: String? { role == .client ? clientId : nil }
}
