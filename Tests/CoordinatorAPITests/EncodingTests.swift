import Coordination
import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import UpdateCompression

@Suite(.timeLimit(.minutes(10)))
struct EncodingTests {
    @Test(arguments: UpdateEncoding.allCases)
    func anEncodedUpdateMakesTheModel(_ encoding: UpdateEncoding) async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned(encoding: encoding.rawValue)
        let values: [Float] = [1, -2, 0.5, 4]
        let url = try #require(assignment["update_url"] as? String)
        var residual: [Float] = []
        let body = UpdateEncoder.encode(
            ParameterVector(layout: Service.layout, values: values),
            as: encoding,
            metadata: Service.base(Service.layout, ["num_examples": "3"]),
            seed: 5,
            residual: &residual
        )
        // What the file says, read back independently of the server.
        let path = service.directory.path + "/update"
        try body.write(to: URL(fileURLWithPath: path))
        var decoded = [Float](repeating: 0, count: 4)
        try UpdateFile(path: path, layout: Service.layout).read(0..<4, into: &decoded)
        #expect(encoding != .topk || decoded == [0, 0, 0, 4] && residual == [1, -2, 0.5, 0])
        #expect(![.f32, .f16, .bf16].contains(encoding) || decoded == values)
        let answer = try await service.call("PUT", url, token: token, Array(body))
        #expect(answer.status == 200, "\(answer.json)")
        #expect(try await service.call("PUT", url, token: token, Array(body)).status == 200)
        // The other place stays empty: the deadline closes the round with the one update.
        service.clock.advance(by: 400)
        try await service.coordinator.tick()
        try await service.coordinator.tick()
        service.clock.advance(by: 400)
        try await service.coordinator.tick()
        try await service.waitForEnd(of: run)
        let weights = try await service.call("GET", "/v1/runs/\(run)/models/1/weights", token: service.admin)
        try Data(weights.bytes).write(to: URL(fileURLWithPath: path))
        let model = try SafetensorsFile(path: path).readAll().values
        // The grid of sums is 2^-30.
        for index in 0..<4 {
            #expect(abs(model[index] - decoded[index]) <= 0x1p-20, "\(encoding): \(model) \(decoded)")
        }
        let spool = service.coordinator.blobs.spoolNames()
        #expect(!spool.contains { $0.hasSuffix(".plain") || $0.hasSuffix(".update") }, "\(spool)")
    }

    @Test func anotherEncodingAndDamageAreRefusedByCode() async throws {
        func refusal(_ change: (inout [UInt8]) -> Void, sent: UpdateEncoding = .int8) async throws -> (Int, String) {
            let service = try await Service()
            let (_, token, assignment) = try await service.assigned(encoding: "int8")
            var residual: [Float] = []
            var body = Array(
                UpdateEncoder.encode(
                    ParameterVector(layout: Service.layout, values: [1, -2, 0.5, 4]),
                    as: sent,
                    metadata: Service.base(),
                    seed: 5,
                    residual: &residual
                )
            )
            change(&body)
            let answer = try await service.call("PUT", assignment["update_url"] as? String ?? "", token: token, body)
            return (answer.status, answer.code)
        }
        #expect(try await refusal({ _ in }, sent: .f32) == (422, "encoding_mismatch"))
        #expect(try await refusal({ _ in }, sent: .topk) == (422, "encoding_mismatch"))
        #expect(try await refusal({ $0.removeLast() }) == (422, "tensor_mismatch"))
    }

    @Test func onlyPlainDeltasMayBeCompressed() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification = RunFile.sample {
            $0.cohort.goal = 2
            $0.training += ["encoding": "int8", "submit": "weights"]
        }.text
        let answer = try await service.post("/v1/runs", specification)
        #expect(answer.status == 422 && answer.json.description.contains("/training/encoding"), "\(answer.json)")
    }
}
