import Foundation
import WireFormat

/// A count of many clients, which is made on another thread, some at a time.
struct ClientCount: Sendable {
    /// Whether a client counts.
    let admits: @Sendable (ClientRecord) -> Bool
    /// Whether the count is wanted still.
    let isWanted: @Sendable (RunTable) -> Bool
}

extension RunState {
    /// How many clients the draw of an attempt takes, if that is known without a look at many: else it is `nil` until ``drawCount`` was
    /// made, and for a round without a draw.
    ///
    /// The count only says when everyone has reported. Whether a client is in is decided by its coin, whenever it comes.
    func drawnAtOnce(_ round: RoundRecord, _ clients: ClientTable) -> Int? {
        let policy = terms(of: round).policy
        guard policy.isDrawn else { return nil }
        guard policy != .all else { return clients.presentCount(population: record.populationId) }
        guard clients.count <= Placement.countedAtOnce else { return nil }
        return clients.part(from: 0, limit: Placement.countedAtOnce).count {
            $0.state != .revoked && isDrawn($0, round, policy: policy)
        }
    }

    /// The count of the clients that the open attempt's draw takes; `nil` if it is known, or there is no draw.
    var drawCount: ClientCount? {
        guard let round, round.phase.isCollecting, round.drawn == nil, terms(of: round).policy.isDrawn,
            let key = round.drawKey
        else { return nil }
        let (id, population, limit) = (record.id, record.populationId, enumerationTime)
        let rate = specification.cohort.samplingRate ?? 0
        return ClientCount { client in
            client.populationId == population && client.registeredAt <= limit && client.state != .revoked
                && PoissonDraw.includes(client.id, key: key, rate: rate)
        } isWanted: { runs in
            guard let open = runs[id]?.round else { return false }
            return open.phase.isCollecting && open.drawn == nil && open.number == round.number
                && open.attempt == round.attempt
        }
    }

    /// The count of the clients that meet the run's requirements; `nil` if there are none, or they were counted within a minute.
    func eligibleCount(at now: Date) -> ClientCount? {
        guard let rule = requirementRule else { return nil }
        if let eligible, (0...60).contains(now.timeIntervalSince(eligible.at)) { return nil }
        let (id, population) = (record.id, record.populationId)
        return ClientCount { client in
            client.populationId == population && client.state != .revoked
                && rule.refusal(of: ClientProfileCache.parse(client)) == nil
        } isWanted: { runs in
            runs[id]?.isOver == false
        }
    }

    /// The same count, made now, of few clients: their profiles are kept.
    func eligibleAtOnce(_ clients: ClientTable) -> Int {
        clients.part(from: 0, limit: Placement.countedAtOnce).count {
            $0.populationId == record.populationId && $0.state != .revoked
                && requirementRefusal(of: $0, clients) == nil
        }
    }
}
