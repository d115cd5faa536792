import Foundation
import Tensors
import TestBenches
import Testing

/// Copies of one device's state, as the server meets them.
@Suite(.timeLimit(.minutes(10)))
struct StateGenerationTests {
    @Test func aCopyOfAStateThatHasGoneOnIsRefusedAlsoByARestartedServer() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        // A client that says none is given none.
        #expect(assignment["state_generation"] == nil)
        func checkIn(_ service: Service, _ generation: Int) async throws -> Service.Answer {
            try await service.post("/v1/checkins", token: token, #"{"state_generation": \#(generation)}"#)
        }
        func leave(_ service: Service, _ answer: Service.Answer) async throws {
            let work = try #require(answer.json["assignment"] as? [String: Any], "\(answer.json)")
            let id = try #require(work["id"] as? String)
            let failure = #"{"code": "training_failed"}"#
            #expect(try await service.post("/v1/assignments/\(id)/failure", token: token, failure).status == 204)
        }
        let id = try #require(assignment["id"] as? String)
        let failure = #"{"code": "training_failed"}"#
        #expect(try await service.post("/v1/assignments/\(id)/failure", token: token, failure).status == 204)
        let first = try await checkIn(service, 0)
        #expect((first.json["assignment"] as? [String: Any])?["state_generation"] as? Int == 1, "\(first.json)")
        // The answer was lost: the same work comes again, with the same number.
        let again = try await checkIn(service, 0)
        #expect((again.json["assignment"] as? [String: Any])?["state_generation"] as? Int == 1, "\(again.json)")
        #expect(try await checkIn(service, 1).status == 201)
        let copy = try await checkIn(service, 0)
        #expect(copy.status == 409 && copy.json["code"] as? String == "state_cloned", "\(copy.json)")
        try await leave(service, first)
        let second = try await checkIn(service, 1)
        #expect((second.json["assignment"] as? [String: Any])?["state_generation"] as? Int == 2, "\(second.json)")
        let restarted = try await service.restarted()
        #expect(try await checkIn(restarted, 0).json["code"] as? String == "state_cloned")
        #expect(try await checkIn(restarted, 1).status == 201)
    }

    /// What a device has ended says that it has its assignment's number, also to a server that is started again: a copy that comes
    /// first with the number before was taken for the device, and the device for the copy.
    @Test(arguments: [true, false])
    func aCopyDoesNotExpelTheDeviceAfterARestart(_ isDelivered: Bool) async throws {
        let service = try await Service()
        let (_, token, first) = try await service.assigned()
        func checkIn(_ service: Service, _ generation: Int) async throws -> Service.Answer {
            try await service.post("/v1/checkins", token: token, #"{"state_generation": \#(generation)}"#)
        }
        let failure = #"{"code": "training_failed"}"#
        let id = try #require(first["id"] as? String)
        #expect(try await service.post("/v1/assignments/\(id)/failure", token: token, failure).status == 204)
        let answer = try await checkIn(service, 0)
        let work = try #require(answer.json["assignment"] as? [String: Any], "\(answer.json)")
        #expect(work["state_generation"] as? Int == 1)
        let next = try #require(work["id"] as? String)
        if isDelivered {
            let values = ParameterVector(zeros: Service.layout).values
            let receipt = try await service.call(
                "PUT",
                "/v1/assignments/\(next)/update",
                token: token,
                Service.update(values, ["num_examples": "1"]),
                ["Content-Type": "application/vnd.safetensors"]
            )
            #expect(receipt.status == 200, "\(receipt.json)")
        } else {
            #expect(try await service.post("/v1/assignments/\(next)/failure", token: token, failure).status == 204)
        }
        let restarted = try await service.restarted()
        let copy = try await checkIn(restarted, 0)
        #expect(copy.status == 409 && copy.json["code"] as? String == "state_cloned", "\(copy.json)")
        #expect(try await checkIn(restarted, 1).status < 300)
    }
}
