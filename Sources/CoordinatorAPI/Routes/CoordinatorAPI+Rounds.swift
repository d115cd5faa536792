import Coordination
import HTTPServing
import WireFormat

extension CoordinatorAPI {
    /// Rounds and evaluations of a run, what happened in them, and what is known about single updates.
    func addRoundRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.rounds) { request, run in
            let after = try request.integer("after", default: 0, in: 0...ServerRequest.greatestNumber)
            let before = try request.integer("before", default: Int.max, in: 0...ServerRequest.greatestNumber)
            let (limit, cursor) = try request.page()
            return try await Self.list(
                await coordinator.rounds(
                    run: run.text,
                    in: after + 1..<max(after + 1, before),
                    last: try request.integer("last", default: Int.max, in: 1...ServerRequest.greatestNumber),
                    from: cursor ?? 0,
                    limit: limit
                )
            )
        }
        routes.add(Endpoints.round) { request, run, round in
            try Self.tagged(await coordinator.round(run: run.text, number: round.number), request)
        }
        routes.add(Endpoints.roundHistory) { request, run, round in
            try await history(request, run, number: round.number)
        }
        routes.add(Endpoints.roundUpdates) { request, run, round in
            try await Self.list(coordinator.updateScores(run: run.text, round: round.number), request)
        }
        routes.add(Endpoints.evaluations) { request, run in
            let (limit, cursor) = try request.page()
            return try await Self.list(
                await coordinator.evaluations(
                    run: run.text,
                    last: try request.integer("last", default: Int.max, in: 1...ServerRequest.greatestNumber),
                    from: cursor ?? 0,
                    limit: limit
                )
            )
        }
        routes.add(Endpoints.evaluationHistory) { request, run, round in
            try await history(request, run, number: -round.number)
        }
    }

    /// A page of what happened in a round.
    private func history(_ request: ServerRequest, _ run: RunReference, number: Int) async throws -> ServerResponse {
        let (limit, cursor) = try request.page()
        let rows = try await coordinator.roundHistory(
            run: run.text,
            number: number,
            assignments: try request.flag("assignments"),
            from: cursor ?? 0,
            limit: limit
        )
        return try await Self.list(Listing(items: rows.map(HistoryView.init), next: rows.next))
    }
}

extension HistoryView {
    fileprivate init(_ row: HistoryRow) {
        self.init(
            attempt: row.attempt,
            at: row.at.wireTimestamp,
            state: row.state,
            cause: row.cause,
            assignment: row.assignmentId
        )
    }
}
