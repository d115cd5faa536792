import Crypto
import Foundation
import MartletClient
import MartletTransport
import StrictJSON
import Synchronization
import UpdateCompression
import WireFormat

extension InMemoryServer {
    func answer(_ request: TransportRequest, _ path: [String], _ body: Data) throws -> TransportResponse {
        func isFor(_ row: EndpointRow) -> Bool { row.matches(path) && row.method.rawValue == request.method }
        if isFor(Endpoints.register.row) { return try register(request, body) }
        guard let client = client(of: request) else { return Self.refusal(401, "unauthorized") }
        if isFor(Endpoints.checkIn.row) { return try checkIn(client, body) }
        if isFor(Endpoints.weights.row) { return model(try Endpoints.weights.parameters(in: path).1) }
        if isFor(Endpoints.assignment.row) {
            return try Self.json(200, view(try Endpoints.assignment.parameters(in: path).text, of: client))
        }
        guard let row = Endpoints.all.first(where: { $0.access == .client && isFor($0) }),
            let id = try? row.parameter(AssignmentReference.self, in: path).text,
            let assignment = state.withLock({ $0.assignments[id] }), assignment.client == client
        else { return Self.refusal(404, "not_found") }
        return try work(request, row, assignment, body)
    }

    static func refusal(_ status: Int, _ code: String, _ detail: String? = nil) -> TransportResponse {
        let problem = ProblemDocument(
            title: code,
            status: status,
            detail: detail ?? "the server says \(code)",
            code: code
        )
        return TransportResponse(
            status: status,
            headers: ["content-type": "application/problem+json"],
            body: (try? WireCoding.encode(problem)) ?? Data()
        )
    }

    private static func json(_ status: Int, _ value: (some Encodable)?) throws -> TransportResponse {
        guard let value else { return refusal(404, "not_found") }
        return TransportResponse(
            status: status,
            headers: ["content-type": "application/json"],
            body: try WireCoding.encode(value)
        )
    }

    /// Reads a document as the server does, or says what is wrong with it.
    private static func read<Value>(
        _ body: Data,
        _ read: (JSONValue) throws(DocumentError) -> Value
    ) -> Result<Value, DocumentError> {
        do throws(DocumentError) { return .success(try read(try .parse(Array(body)))) } catch { return .failure(error) }
    }

    // MARK: - Clients

    private func register(_ request: TransportRequest, _ body: Data) throws -> TransportResponse {
        guard let token = request.headers["Authorization"], token.hasPrefix("Bearer "), token.count > 7 else {
            return Self.refusal(401, "unauthorized")
        }
        let answer = state.withLock { state in
            let key = request.headers["Idempotency-Key"] ?? "\(state.clients.count)"
            let id = state.registrations[key] ?? "clt_\(state.registrations.count + 1)"
            state.registrations[key] = id
            state.clients["token-of-\(id)"] = id
            return RegistrationResponse(clientId: id, token: "token-of-\(id)")
        }
        return try Self.json(201, answer)
    }

    private func client(of request: TransportRequest) -> String? {
        let token = (request.headers["Authorization"] ?? "").replacing("Bearer ", with: "")
        return state.withLock { $0.clients[token] }
    }

    // MARK: - Work

    private func checkIn(_ client: String, _ body: Data) throws -> TransportResponse {
        if case .failure(let error) = Self.read(body, { value throws(DocumentError) in try CheckInRequest.read(value) })
        {
            return Self.refusal(422, "invalid_document", error.description)
        }
        let (assignment, reason) = state.withLock { state -> (Assignment?, String) in
            if let live = state.assignments.values.first(where: { $0.client == client && $0.state == .assigned }) {
                return (live, "")
            }
            guard state.round <= run.rounds else { return (nil, "no_run") }
            guard state.participations[client, default: 0] < run.maxParticipations else {
                return (nil, "participation_limit")
            }
            let members = state.assignments.values.filter { $0.round == state.round && $0.state != .failed }
            guard members.count < run.goal, !members.contains(where: { $0.client == client }) else {
                return (nil, "no_open_slot")
            }
            let assignment = Assignment(id: "asg_\(state.assignments.count + 1)", client: client, round: state.round)
            state.assignments[assignment.id] = assignment
            state.participations[client, default: 0] += 1
            return (assignment, "")
        }
        guard let assignment else {
            return try Self.json(
                200,
                CheckInResponse(assignment: nil, reason: reason, retryWindow: .init(minS: 1, maxS: 2))
            )
        }
        return try Self.json(201, CheckInResponse(assignment: self.body(of: assignment)))
    }

    private func view(_ id: String, of client: String) -> AssignmentBody? {
        state.withLock { $0.assignments[id] }.flatMap { $0.client == client ? body(of: $0) : nil }
    }

    private func body(of assignment: Assignment) -> AssignmentBody {
        let version = assignment.round - 1
        let model = state.withLock { $0.models[version] }
        let file = SafetensorsWriter.encode(model)
        return AssignmentBody(
            id: assignment.id,
            run: "run_1",
            round: assignment.round,
            attempt: 1,
            state: assignment.state,
            model: .init(
                version: version,
                url: Endpoints.weights("run_1", VersionReference(version)).path,
                sha256: Self.hexadecimal(of: file),
                bytes: file.count
            ),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: run.maxParticipations,
            tensors: model.layout,
            updateUrl: Endpoints.putUpdate(AssignmentReference(assignment.id)).path,
            seed: String(assignment.round),
            deadline: "2030-01-01T00:00:00Z",
            deadlineInS: 3600
        )
    }

    private func model(_ version: VersionReference) -> TransportResponse {
        let models = state.withLock { $0.models }
        guard let number = Int(version.text), models.indices.contains(number) else {
            return Self.refusal(404, "not_found")
        }
        let file = SafetensorsWriter.encode(models[number])
        return TransportResponse(
            status: 200,
            headers: ["content-type": "application/vnd.safetensors", "etag": "\"\(Self.hexadecimal(of: file))\""],
            body: file
        )
    }

    private static func hexadecimal(of data: Data) -> String {
        SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
    }

    private func work(
        _ request: TransportRequest,
        _ endpoint: EndpointRow,
        _ assignment: Assignment,
        _ body: Data
    ) throws -> TransportResponse {
        switch endpoint {
        case Endpoints.heartbeat.row:
            guard assignment.state == .assigned else { return Self.refusal(410, "assignment_ended") }
            return try Self.json(200, HeartbeatResponse(state: .training, leaseS: 60, deadlineInS: 3600))
        case Endpoints.failure.row:
            let report: FailureReport
            switch Self.read(body, { value throws(DocumentError) in try FailureReport.read(value) }) {
            case .success(let value): report = value
            case .failure(let error): return Self.refusal(422, "invalid_document", error.description)
            }
            state.withLock { state in
                guard state.assignments[assignment.id]?.state == .assigned else { return }
                state.assignments[assignment.id]?.state = .failed
                state.failures.append(.init(round: assignment.round, code: report.code.rawValue, detail: report.detail))
            }
            return TransportResponse(status: 204)
        case Endpoints.putUpdate.row: return try take(body, request, assignment)
        // Parts of uploads are not known here: the client sends the file whole.
        case Endpoints.appendToUpdate.row, Endpoints.updateState.row: return Self.refusal(405, "method_not_allowed")
        default: return Self.refusal(404, "not_found")
        }
    }

    // MARK: - Updates

    private func take(_ body: Data, _ request: TransportRequest, _ assignment: Assignment) throws -> TransportResponse {
        let hash = Self.hexadecimal(of: body)
        if let receipt = assignment.receipt {
            return receipt.sha256 == hash ? try Self.json(200, receipt) : Self.refusal(409, "update_differs")
        }
        guard assignment.state == .assigned else { return Self.refusal(410, "round_closed") }
        let named = "sha-256=:\(Data(SHA256.hash(data: body)).base64EncodedString()):"
        guard request.headers["Content-Digest"] == named else { return Self.refusal(422, "digest_mismatch") }
        let update: Update
        do { update = try read(body, assignment) } catch let error as UpdateFormatError {
            state.withLock { $0.assignments[assignment.id]?.state = .failed }
            return Self.refusal(422, "tensor_mismatch", error.description)
        } catch let error as SafetensorsError {
            state.withLock { $0.assignments[assignment.id]?.state = .failed }
            return Self.refusal(422, "tensor_mismatch", "\(error)")
        }
        guard update.delta.values.allSatisfy(\.isFinite) else {
            state.withLock { $0.assignments[assignment.id]?.state = .failed }
            return Self.refusal(422, "not_finite")
        }
        let receipt = UpdateReceipt(assignment: assignment.id, state: .accepted, sha256: hash, bytes: body.count)
        state.withLock { state in
            guard state.assignments[assignment.id]?.state == .assigned else { return }
            state.assignments[assignment.id]?.state = .accepted
            state.assignments[assignment.id]?.receipt = receipt
            state.updates.append(update)
            commit(&state)
        }
        return try Self.json(200, receipt)
    }

    /// Reads an update's file by its encoding, as the server does.
    private func read(_ body: Data, _ assignment: Assignment) throws -> Update {
        let layout = state.withLock { $0.models[assignment.round - 1].layout }
        let path = FileManager.default.temporaryDirectory.path + "/update-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body.write(to: URL(fileURLWithPath: path))
        let file = try UpdateFile(path: path, layout: layout)
        var delta = ParameterVector(zeros: layout)
        try file.read(0..<layout.parameterCount, into: &delta.values)
        return Update(
            round: assignment.round,
            client: assignment.client,
            delta: delta,
            exampleCount: file.metadata[UpdateMetadata.exampleCount].flatMap { Int($0) } ?? 1,
            metadata: file.metadata
        )
    }

    /// Ends the round when its goal is reached: the mean of its updates is added to the model.
    private func commit(_ state: inout State) {
        let updates = state.updates.filter { $0.round == state.round }
        guard updates.count == run.goal else { return }
        let total = updates.reduce(0) { $0 + Double($1.exampleCount) }
        var model = state.models[state.models.count - 1]
        for index in model.values.indices {
            let sum = updates.reduce(0) { $0 + Double($1.delta.values[index]) * Double($1.exampleCount) }
            model.values[index] += Float(sum / max(1, total))
        }
        state.models.append(model)
        state.round += 1
    }
}
