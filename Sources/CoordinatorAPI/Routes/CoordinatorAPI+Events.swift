import Coordination
import HTTPServing
import HTTPTypes
import StrictJSON
import WireFormat

extension CoordinatorAPI {
    /// What happens, as a stream or in pages.
    func addEventRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.events) { request in
            let after = try Self.lastEventID(request)
            let run = request.query["run"]
            _ = try request.page()
            if let run { _ = try await coordinator.run(run) }
            let accept = AcceptField(request.headers[.accept])
            guard accept.best(of: ["text/event-stream", "application/json"]) != "application/json" else {
                return try await eventPage(request, after: after ?? 0, run: run)
            }
            // Before the stream: once that has begun its status is 200, whatever happens.
            let subscription = try await coordinator.subscribe(token: Self.bearer(request))
            var headers: HTTPFields = [.contentType: "text/event-stream", .cacheControl: "no-store"]
            // A proxy that gathers answers (nginx by default) would keep events to itself.
            if let name = HTTPField.Name("X-Accel-Buffering") { headers[name] = "no" }
            return ServerResponse(
                status: 200,
                headers: headers,
                body: .stream { send in
                    try await self.stream(request, subscription, after: after, run: run, to: send)
                }
            )
        }
    }

    private func eventPage(_ request: ServerRequest, after: Int, run: String?) async throws -> ServerResponse {
        let (limit, position) = try request.page()
        let start = position ?? after
        let rows = try await coordinator.events(after: start, limit: limit, run: run)
        let cursor = rows.count == limit ? rows.last.map { String($0.id) } : nil
        return try Self.json(Page(items: rows.map(StoredEvent.init), nextCursor: cursor))
    }

    /// Stored events after the one that the caller has, then new ones as they happen.
    private func stream(
        _ request: ServerRequest,
        _ subscription: EventSubscription,
        after: Int?,
        run: String?,
        to send: @Sendable ([UInt8]) async throws -> Void
    ) async throws {
        try await send(Array("retry: 2000\n\n".utf8))
        var last = after ?? subscription.headID
        if last + 1 < subscription.firstID || last > subscription.headID {
            // Dropped by now, or of another life of this database: the caller must read everything anew.
            let first = subscription.firstID
            last = last > subscription.headID ? subscription.headID : first - 1
            let data = JSONText.object([("first", String(first))])
            try await send(Array("id: \(last)\nevent: reset\ndata: \(data)\n\n".utf8))
        }
        while last < subscription.headID {
            // A caller that reads slowly has what is stored no longer than its token.
            try await step(request) { _ in }
            let rows = try await coordinator.events(after: last, limit: 500, run: run)
            guard let newest = rows.last else { break }
            try await send(rows.reduce(into: []) { $0 += Self.encoded($1) })
            last = newest.id
        }
        for await signal in subscription.live {
            switch signal {
            case .keepAlive: try await send(Array(": alive\n\n".utf8))
            case .event(let row) where row.id > last && (run == nil || row.runId == run):
                try await send(Self.encoded(row))
            case .event: continue
            }
        }
    }

    private static func encoded(_ row: EventRow) -> [UInt8] {
        // The data is JSON without line breaks: one field of the stream.
        Array("id: \(row.id)\nevent: \(row.type)\ndata: \(row.data)\n\n".utf8)
    }

    private static func lastEventID(_ request: ServerRequest) throws -> Int? {
        _ = try request.integer("after", default: 0, in: 0...ServerRequest.greatestNumber)
        let field = HTTPField.Name("Last-Event-ID").flatMap { request.headers[$0] } ?? request.query["after"]
        guard let field, !field.isEmpty else { return nil }
        guard let id = Int(field), (0...ServerRequest.greatestNumber).contains(id) else {
            throw ParseFailure(
                status: 400,
                detail: "Last-Event-ID must be the id of an event, or 0 for all that are kept"
            )
        }
        return id
    }
}

extension StoredEvent {
    fileprivate init(_ row: EventRow) {
        self.init(
            id: row.id,
            at: row.at.wireTimestamp,
            type: row.type,
            run: row.runId,
            population: row.populationId,
            data: (try? JSONValue.parse(Array(row.data.utf8))) ?? .null
        )
    }
}
