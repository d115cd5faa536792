import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import Tensors
import WireFormat

extension CoordinatorAPI {
    func addRunRoutes(to router: inout Router) {
        router.add("POST", "/v1/runs") { request in
            try await requireOperator(request)
            let specification = try RunSpecification.read(await Self.document(request), architectures: architectures)
            let model = try makeInitialModel(specification.model)
            if let base = try baseLayout(specification.model) {
                try await coordinator.checkBase(of: specification, against: base)
            }
            guard try !request.flag("dry_run") else {
                return try Self.json(await coordinator.planRun(specification, initialModel: model))
            }
            let run = try await coordinator.createRun(specification, initialModel: model)
            return try Self.created(run, at: "/v1/runs/\(run.id)")
        }
        router.add("GET", "/v1/runs") { request in
            try await requireViewer(request)
            let (limit, cursor) = try request.page()
            return try Self.list(await coordinator.listRuns(from: cursor ?? 0, limit: limit))
        }
        router.add("GET", "/v1/runs/{run}") { request in
            try await requireViewer(request)
            return try Self.tagged(await coordinator.run(request.parameters["run"] ?? ""), request)
        }
        router.add("POST", "/v1/runs/{run}/start") { try await steer($0) { try $0.startRun($1) } }
        router.add("POST", "/v1/runs/{run}/pause") { try await steer($0) { try $0.pauseRun($1) } }
        router.add("POST", "/v1/runs/{run}/resume") { try await steer($0) { try $0.resumeRun($1) } }
        router.add("POST", "/v1/runs/{run}/cancel") { try await steer($0) { try $0.cancelRun($1) } }
        router.add("GET", "/v1/runs/{run}/rounds") { request in
            try await requireViewer(request)
            let after = try request.integer("after", default: 0, in: 0...ServerRequest.greatestNumber)
            let before = try request.integer("before", default: Int.max, in: 0...ServerRequest.greatestNumber)
            let (limit, cursor) = try request.page()
            return try Self.list(
                await coordinator.rounds(
                    run: request.parameters["run"] ?? "",
                    in: after + 1..<max(after + 1, before),
                    last: try request.integer("last", default: Int.max, in: 1...ServerRequest.greatestNumber),
                    from: cursor ?? 0,
                    limit: limit
                )
            )
        }
        router.add("GET", "/v1/runs/{run}/rounds/{round}") { request in
            try await requireViewer(request)
            let view = try await coordinator.round(
                run: request.parameters["run"] ?? "",
                number: try Self.roundNumber(request)
            )
            return try Self.tagged(view, request)
        }
        router.add("GET", "/v1/runs/{run}/rounds/{round}/history") { request in
            try await requireViewer(request)
            return try await history(request, number: try Self.roundNumber(request))
        }
        router.add("GET", "/v1/runs/{run}/evaluations") { request in
            try await requireViewer(request)
            let (limit, cursor) = try request.page()
            return try Self.list(
                await coordinator.evaluations(
                    run: request.parameters["run"] ?? "",
                    last: try request.integer("last", default: Int.max, in: 1...ServerRequest.greatestNumber),
                    from: cursor ?? 0,
                    limit: limit
                )
            )
        }
        router.add("GET", "/v1/runs/{run}/evaluations/{round}/history") { request in
            try await requireViewer(request)
            return try await history(request, number: -(try Self.roundNumber(request)))
        }
        router.add("GET", "/v1/runs/{run}/curves") { request in
            try await requireViewer(request)
            let limit = try request.integer("points", default: 500, in: 4...10_000)
            return try Self.json(await coordinator.curves(run: request.parameters["run"] ?? "", points: limit))
        }
        router.add("GET", "/v1/runs/{run}/metrics") { request in
            try await requireViewer(request)
            let run = request.parameters["run"] ?? ""
            let type = AcceptField(request.headers[.accept]).best(of: ["application/json", "text/csv"])
            guard type == "text/csv" else {
                let (limit, cursor) = try request.page()
                return try Self.list(await coordinator.committedRounds(run: run, from: cursor ?? 0, limit: limit))
            }
            let rounds = try await coordinator.committedRounds(run: run)
            let columns = Set(rounds.flatMap { MetricColumn.all(in: $0.metrics) }).sorted()
            var text = "round,attempt,accepted,rejected,failed,expired,bytes_up,seconds,epsilon,model_sha256"
            text += columns.map { "," + $0.title }.joined() + "\n"
            for round in rounds {
                let epsilon = round.epsilon.map { "\($0)" } ?? ""
                text +=
                    "\(round.number),\(round.attempt),\(round.accepted),\(round.rejected),\(round.failed),\(round.expired),"
                text += "\(round.bytesUp.map(String.init) ?? ""),\(round.seconds),\(epsilon),\(round.modelSha256 ?? "")"
                text += columns.map { ",\(round.metrics?[$0.source]?[$0.name].map { "\($0)" } ?? "")" }.joined() + "\n"
            }
            return ServerResponse(status: 200, headers: [.contentType: "text/csv"], body: .bytes(Array(text.utf8)))
        }
    }

    /// A page of what happened in a round.
    private func history(_ request: ServerRequest, number: Int) async throws -> ServerResponse {
        let (limit, cursor) = try request.page()
        let rows = try await coordinator.roundHistory(
            run: request.parameters["run"] ?? "",
            number: number,
            assignments: try request.flag("assignments"),
            from: cursor ?? 0,
            limit: limit
        )
        return try Self.list(Listing(items: rows.map(HistoryView.init), next: rows.next))
    }

    /// Changes a run's state for an operator.
    private func steer(
        _ request: ServerRequest,
        _ action: @Sendable (isolated Coordinator, _ run: String) throws -> RunView
    ) async throws -> ServerResponse {
        try await requireOperator(request)
        let run = request.parameters["run"] ?? ""
        return try Self.json(await change(request, of: { try $0.run(run) }) { try action($0, run) })
    }

    func addModelRoutes(to router: inout Router) {
        router.add("PUT", "/v1/runs/{run}/model") { request in
            try await requireOperator(request)
            let run = request.parameters["run"] ?? ""
            _ = try await coordinator.run(run)
            try Self.requireBulkType(request)
            let path = coordinator.blobs.spoolPath(Secrets.identifier("model") + ".part")
            let received = try await BodySpool.receive(
                request,
                path: path,
                byteLimit: coordinator.configuration.modelByteLimit
            )
            defer { try? FileManager.default.removeItem(atPath: path) }
            try await DiskQueue.run { try ModelAdmission.check(path) }
            try await SyncQueue.shared.sync(received)
            return try Self.json(
                await coordinator.putInitialModel(
                    run: run,
                    spoolFile: path,
                    sha256: try received.digest().hexadecimal
                ),
                status: 201
            )
        }
        router.add("GET", "/v1/runs/{run}/models") { request in
            try await requireViewer(request)
            let (limit, cursor) = try request.page()
            return try Self.list(
                await coordinator.models(run: request.parameters["run"] ?? "", from: cursor ?? 0, limit: limit)
            )
        }
        router.add("GET", "/v1/runs/{run}/models/{version}") { request in
            try await requireReader(request)
            return try Self.tagged(await model(request), request)
        }
    }

    func model(_ request: ServerRequest) async throws -> ModelVersionView {
        try await coordinator.model(
            run: request.parameters["run"] ?? "",
            version: request.parameters["version"] ?? ""
        )
    }

    func requireReader(_ request: ServerRequest) async throws {
        switch try await principal(request) {
        case .staff: return
        case .client(let id) where await coordinator.mayReadModels(client: id, run: request.parameters["run"] ?? ""):
            return
        default: throw Self.forbidden
        }
    }

    static func roundNumber(_ request: ServerRequest) throws -> Int {
        guard let number = request.parameters["round"].flatMap({ Int($0) }), number >= 0 else {
            throw ParseFailure(status: 404, detail: "rounds are numbered from 1")
        }
        return number
    }

    static func requireBulkType(_ request: ServerRequest) throws {
        let type = request.headers[.contentType] ?? "application/octet-stream"
        guard ["application/vnd.safetensors", "application/octet-stream"].contains(type) else {
            throw ParseFailure(status: 415, detail: "send application/vnd.safetensors, not \(type)")
        }
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
}

private struct HistoryView: Encodable, Sendable {
    var attempt: Int
    var at: String
    var state: String
    var cause: String
    var assignment: String?

    init(_ row: HistoryRow) {
        attempt = row.attempt
        at = row.at.wireTimestamp
        state = row.state
        cause = row.cause
        assignment = row.assignmentId
    }
}
