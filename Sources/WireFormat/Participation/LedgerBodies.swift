package import StrictJSON

/// Where one population's ledger stands: so many rows, and a hash that depends on all of them.
///
/// Devices and auditors keep it: a ledger that is shown later has to extend it.
package struct PopulationLedgerHead: Codable, Equatable, Hashable, Sendable {
    package var population: String
    /// Rows of the population.
    package var number: Int
    /// 64 hexadecimal digits.
    package var hash: String

    package init(population: String, number: Int, hash: String) {
        self.population = population
        self.number = number
        self.hash = hash
    }

    /// The largest number that is taken for one.
    package static let greatestNumber = 1 << 40

    /// Whether it can be a head at all.
    package var isWellFormed: Bool {
        (1...200).contains(population.utf8.count) && population.utf8.allSatisfy(Self.isOfName)
            && (0...Self.greatestNumber).contains(number)
            && hash.utf8.count == 64 && hash.utf8.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
    }

    private static func isOfName(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122, 95, 45: true
        default: false
        }
    }

    /// Reads `POPULATION:NUMBER:HASH`.
    ///
    /// - Returns: `nil` for anything else.
    package init?(text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let number = Int(parts[1]) else { return nil }
        self.init(population: String(parts[0]), number: number, hash: String(parts[2]))
        guard isWellFormed else { return nil }
    }

    /// `POPULATION:NUMBER:HASH`.
    package var text: String { "\(population):\(number):\(hash)" }
}

/// A row by which an administrator accepted a restored ledger, whole, so that a device can find it in the chain.
package struct LedgerAcknowledgement: Codable, Equatable, Sendable {
    /// Place among the population's rows.
    package var number: Int
    package var round: Int
    package var attempt: Int
    package var state: String
    package var event: String
    package var createdAtMs: Int
    /// Where the population's ledger stood before the row; absent in answers of earlier versions.
    package var previousHash: String?

    package init(
        number: Int,
        round: Int,
        attempt: Int,
        state: String,
        event: String,
        createdAtMs: Int,
        previousHash: String? = nil
    ) {
        self.previousHash = previousHash
        self.number = number
        self.round = round
        self.attempt = attempt
        self.state = state
        self.event = event
        self.createdAtMs = createdAtMs
    }
}

/// `GET /v1/populations/{population}/ledger/acknowledgements`.
package struct LedgerAcknowledgements: Codable, Equatable, Sendable {
    package var items: [LedgerAcknowledgement]

    package init(items: [LedgerAcknowledgement]) {
        self.items = items
    }
}

extension LedgerAcknowledgements {
    /// Rows that a client reads, at most.
    private static let countLimit = 10_000

    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            Self(
                items: fields.objects("items", countLimit: countLimit) { row in
                    LedgerAcknowledgement(
                        number: row.integer("number", in: 1...PopulationLedgerHead.greatestNumber),
                        round: row.integer("round", in: -(1 << 53)...(1 << 53)),
                        attempt: row.integer("attempt", in: 0...(1 << 53)),
                        state: row.string("state", lengthLimit: 64),
                        event: row.string("event", lengthLimit: .max),
                        createdAtMs: row.integer("created_at_ms", in: -(1 << 53)...(1 << 53)),
                        previousHash: row.optionalChecked("previous_hash", as: ContentHash.self)?.text
                    )
                }
            )
        }
    }
}

extension LedgerAcknowledgement {
    /// What the row says: why the restored ledger was accepted, and which heads were lost.
    package struct Note: Equatable, Sendable {
        package var reason: String?
        package var lost: [LostLedgerHead]
    }

    /// What ``event`` says; `nil` where the row is another one.
    package var note: Note? {
        guard let document = try? JSONValue.parse(Array(event.utf8)) else { return nil }
        return try? FieldReader.readAnswer(document) { fields -> Note? in
            guard fields.isText("kind", "acknowledgement") else { return nil }
            return Note(
                reason: fields.optionalString("reason", lengthLimit: .max),
                lost: fields.objects("lost", countLimit: 100_000) { lost in
                    LostLedgerHead(
                        after: lost.integer("after", in: 0...PopulationLedgerHead.greatestNumber),
                        number: lost.integer("number", in: 0...PopulationLedgerHead.greatestNumber),
                        hash: lost.checked("hash", as: ContentHash.self)?.text ?? ""
                    )
                }
            )
        }
    }
}

/// What was lost by a roll-back, as an acknowledgement's row names it: heads after `after`, up to this one.
package struct LostLedgerHead: Codable, Equatable, Sendable {
    /// Rows that the restored ledger had.
    package var after: Int
    package var number: Int
    package var hash: String

    package init(after: Int, number: Int, hash: String) {
        self.after = after
        self.number = number
        self.hash = hash
    }

    /// Whether a head is one of those that were lost.
    package func covers(_ head: PopulationLedgerHead) -> Bool {
        after < head.number && head.number <= number && (head.number < number || head.hash == hash)
    }
}

/// Pages of `GET /v1/populations/{population}/ledger/links`.
package enum LedgerLinks {
    /// Bytes of a link.
    package static let byteCount = 32
    /// Links of one page, at most.
    package static let pageCount = 4096
}
