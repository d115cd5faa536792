import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// Runs as a whole: how they begin and end, and what they came to.
    func addRunRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.createRun) { request in
            let specification = try RunSpecification.read(await Self.document(request), architectures: architectures)
            let model = try makeInitialModel(specification.model)
            if let base = try baseLayout(specification.model) {
                try await step(request) { try $0.checkBase(of: specification, against: base) }
            }
            guard try !request.flag("dry_run") else {
                return try Self.json(
                    await coordinator.planRun(specification, initialModel: model) { try requireAllowed(request, $0) }
                )
            }
            let run = try await coordinator.createRun(specification, initialModel: model) {
                try requireAllowed(request, $0)
            }
            return try Self.created(run, at: Endpoints.run(RunReference(run.id)))
        }
        routes.add(Endpoints.runs) { request in
            let (limit, cursor) = try request.page()
            return try await Self.list(coordinator.listRuns(from: cursor ?? 0, limit: limit))
        }
        routes.add(Endpoints.run) { request, run in
            try Self.tagged(await coordinator.run(run.text), request)
        }
        routes.add(Endpoints.startRun) { request, run in
            try await coordinator.prepareStart(run: run.text)
            return try await steer(request, run) { try $0.startRun($1) }
        }
        routes.add(Endpoints.pauseRun) { try await steer($0, $1) { try $0.pauseRun($1) } }
        routes.add(Endpoints.resumeRun) { try await steer($0, $1) { try $0.resumeRun($1) } }
        routes.add(Endpoints.cancelRun) { try await steer($0, $1) { try $0.cancelRun($1) } }
        routes.add(Endpoints.curves) { request, run in
            let limit = try request.integer("points", default: 500, in: 4...10_000)
            return try Self.json(await coordinator.curves(run: run.text, points: limit))
        }
        routes.add(Endpoints.runMetrics) { request, run in
            let type = AcceptField(request.headers[.accept]).best(of: ["application/json", "text/csv"])
            guard type == "text/csv" else {
                let (limit, cursor) = try request.page()
                return try await Self.list(
                    await coordinator.committedRounds(run: run.text, from: cursor ?? 0, limit: limit)
                )
            }
            let rounds = try await coordinator.committedRounds(run: run.text)
            return ServerResponse(
                status: 200,
                headers: [.contentType: "text/csv"],
                body: .bytes(Array(MetricColumn.table(of: Array(rounds)).utf8))
            )
        }
        routes.add(Endpoints.tokenizer) { try await tokenizer($0, $1) }
    }

    /// Changes a run's state for an operator.
    private func steer(
        _ request: ServerRequest,
        _ run: RunReference,
        _ action: @Sendable (isolated Coordinator, _ run: String) throws -> RunView
    ) async throws -> ServerResponse {
        try Self.json(await change(request, of: { try $0.run(run.text) }) { try action($0, run.text) })
    }

    /// A run's vocabulary; it never changes, so its hash is its tag.
    private func tokenizer(_ request: ServerRequest, _ run: RunReference) async throws -> ServerResponse {
        let (document, sha256) = try await coordinator.tokenizer(run: run.text)
        let tag = "\"\(sha256)\""
        var headers: HTTPFields = [.eTag: tag, .cacheControl: "private, max-age=31536000, immutable"]
        if let known = request.headers[.ifNoneMatch], known == "*" || known.contains(tag) {
            return ServerResponse(status: 304, headers: headers)
        }
        headers[.contentType] = "application/json"
        if let name = ContentDigest.representationField { headers[name] = ContentDigest.text(hexadecimal: sha256) }
        return ServerResponse(status: 200, headers: headers, body: .bytes(Array(document)))
    }
}

/// A column of measurements: `accuracy`, or `accuracy.federated` where others than the operator measured.
private struct MetricColumn: Hashable, Comparable {
    var source: String
    var name: String
    var title: String { source == MetricsReport.heldOut ? name : name + "." + source }

    static func all(in metrics: [String: [String: Double]]?) -> [MetricColumn] {
        (metrics ?? [:]).flatMap { source, values in values.keys.map { MetricColumn(source: source, name: $0) } }
    }

    static func < (left: Self, right: Self) -> Bool { (left.source, left.name) < (right.source, right.name) }

    /// Rounds as comma-separated values, a line each.
    static func table(of rounds: [RoundView]) -> String {
        let columns = Set(rounds.flatMap { all(in: $0.metrics) }).sorted()
        var text = "round,attempt,accepted,rejected,failed,expired,bytes_up,seconds,epsilon,model_sha256"
        text += columns.map { "," + $0.title }.joined() + "\n"
        for round in rounds {
            let epsilon = round.epsilon.map { "\($0)" } ?? ""
            text +=
                "\(round.number),\(round.attempt),\(round.accepted),\(round.rejected),\(round.failed),\(round.expired),"
            text += "\(round.bytesUp.map(String.init) ?? ""),\(round.seconds),\(epsilon),\(round.modelSha256 ?? "")"
            text += columns.map { ",\(round.metrics?[$0.source]?[$0.name].map { "\($0)" } ?? "")" }.joined() + "\n"
        }
        return text
    }
}
