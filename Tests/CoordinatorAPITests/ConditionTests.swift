import Foundation
import HTTPTypes
import TestBenches
import TestSupport
import Testing

/// Conditional requests and negotiation: RFC 9110 sections 12 and 13.
@Suite(.timeLimit(.minutes(10)))
struct ConditionTests {
    private func tag(_ service: Service, _ target: String) async throws -> String {
        let answer = try await service.call("GET", target, token: service.admin)
        #expect(answer.status == 200, "\(target): \(answer.code)")
        return try #require(answer.headers[.eTag], "\(target)")
    }

    @Test func whatChangesHasATagAndIsNotSentTwice() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        let clients = try await service.call("GET", "/v1/clients", token: service.admin).json["items"]
        let client = try #require((clients as? [[String: Any]])?.first?["id"] as? String)
        let issued = try await service.post("/v1/tokens", #"{"role": "viewer", "name": "v"}"#).json
        let token = try #require((issued["id"] ?? (issued["view"] as? [String: Any])?["id"]) as? String)
        for target in [
            "/v1/runs/\(run)", "/v1/runs/\(run)/rounds/1", "/v1/runs/\(run)/models/0", "/v1/populations/p",
            "/v1/clients/\(client)", "/v1/tokens/\(token)",
        ] {
            let tag = try await tag(service, target)
            let again = try await service.call("GET", target, token: service.admin, [], ["If-None-Match": tag])
            #expect(again.status == 304 && again.bytes.isEmpty && again.headers[.eTag] == tag, "\(target)")
            let other = try await service.call("GET", target, token: service.admin, [], ["If-None-Match": "\"x\""])
            #expect(other.status == 200, "\(target)")
            let stale = try await service.call("GET", target, token: service.admin, [], ["If-Match": "\"x\""])
            #expect(stale.status == 412 && stale.code == "precondition_failed", "\(target)")
        }
    }

    @Test func anOperatorChangesOnlyWhatWasSeen() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        let target = "/v1/runs/\(run)"
        let seen = try await tag(service, target)
        // Seconds pass, and the sentence about them changes: it is another look of the same state.
        service.clock.advance(by: 3)
        let later = try await tag(service, target)
        #expect(later != seen)
        func act(_ action: String, _ field: String) async throws -> Service.Answer {
            try await service.call("POST", "\(target)/\(action)", token: service.admin, [], ["If-Match": field])
        }
        #expect(try await act("pause", "\"y\", \(seen)").status == 200)
        // Somebody else, who still believes that the run goes on.
        let refused = try await act("cancel", seen)
        #expect(refused.status == 412 && refused.code == "precondition_failed")
        #expect(refused.headers[.eTag] == (try await tag(service, target)))
        #expect(try await service.call("GET", target, token: service.admin).json["state"] as? String == "paused")
        let weak = try await act("resume", "W/\(try await tag(service, target))")
        #expect(weak.status == 412, "a weak tag names nothing")
        #expect(try await act("resume", "*").status == 200)
        #expect(try await act("cancel", try await tag(service, target)).status == 200)
        #expect(
            try await service.call("POST", "/v1/runs/none/cancel", token: service.admin, [], ["If-Match": "*"]).status
                == 404
        )
        // Who may not act learns nothing of the state.
        #expect(try await service.call("POST", "\(target)/cancel", token: "x", [], ["If-Match": "\"y\""]).status == 401)
        let rows = try await service.call("GET", "/v1/audit?outcome=refused", token: service.admin).json["items"]
        let codes = (rows as? [[String: Any]])?.compactMap { $0["code"] as? String } ?? []
        #expect(codes.count { $0 == "precondition_failed" } == 2)
    }

    @Test func everyChangeOfAResourceTakesTheCondition() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "b", "budget": {"epsilon": 8, "delta": 1e-5}}"#)
        let (_, _, _) = try await service.assigned()
        let clients = try await service.call("GET", "/v1/clients", token: service.admin).json["items"]
        let client = try #require((clients as? [[String: Any]])?.first?["id"] as? String)
        let issued = try await service.post("/v1/tokens", #"{"role": "viewer", "name": "v"}"#)
        let token = try #require(issued.headers[.location])
        let changes = [
            ("PATCH", "/v1/clients/\(client)", "/v1/clients/\(client)", #"{"name": "n"}"#),
            ("DELETE", "/v1/clients/\(client)/quarantine", "/v1/clients/\(client)", ""),
            ("DELETE", "/v1/clients/\(client)", "/v1/clients/\(client)", ""),
            ("PATCH", "/v1/populations/b/budget", "/v1/populations/b", #"{"epsilon": 4}"#),
            ("POST", token + "/rotate", token, "{}"), ("DELETE", token, token, ""),
        ]
        for (method, target, resource, body) in changes {
            let before = try await service.call("GET", resource, token: service.admin).json
            let stale = try await service.call(
                method,
                target,
                token: service.admin,
                Array(body.utf8),
                ["If-Match": "\"stale\""]
            )
            #expect(stale.status == 412, "\(method) \(target)")
            let after = try await service.call("GET", resource, token: service.admin).json
            #expect(NSDictionary(dictionary: before) == NSDictionary(dictionary: after), "\(method) \(target)")
            let tag = try await tag(service, resource)
            let done = try await service.call(
                method,
                target,
                token: service.admin,
                Array(body.utf8),
                ["If-Match": tag]
            )
            // A client that is not quarantined cannot be let go: the condition held all the same.
            #expect(done.status != 412 && done.status < 500, "\(method) \(target): \(done.status) \(done.code)")
        }
    }

    @Test func whatTheCallerCannotReadIsNotSent() async throws {
        let service = try await Service()
        let (run, client, assignment) = try await service.assigned()
        let types = [
            ("/healthz", "application/json"), ("/v1/runs", "application/json"), ("/v1/runs/\(run)", "application/json"),
            ("/metrics", "text/plain"), ("/v1/runs/\(run)/models/0/weights", "application/vnd.safetensors"),
            ("/v1/runs/\(run)/models/0/archive", "application/x-tar"), ("/", "text/html"),
            ("/v1/runs/\(run)/metrics", "text/csv"), ("/v1/populations/p/ledger?format=jsonl", "application/jsonl"),
            ("/v1/events?limit=1", "application/json"),
        ]
        for (target, type) in types {
            for field in [type, "image/png, \(type.prefix { $0 != "/" })/*;q=0.1"] {
                let answer = try await service.call("GET", target, token: service.admin, [], ["Accept": field])
                #expect(answer.status == 200, "\(target) \(field): \(answer.status)")
                #expect(answer.headers[.contentType]?.hasPrefix(type) ?? false, "\(target) \(field)")
            }
            for method in ["GET", "HEAD"] {
                let refused = try await service.call(
                    method,
                    target,
                    token: service.admin,
                    [],
                    ["Accept": "image/png, */*;q=0"]
                )
                #expect(refused.status == 406 && refused.code == "not_acceptable", "\(method) \(target)")
            }
        }
        // An action is not begun.
        let pause = try await service.call(
            "POST",
            "/v1/runs/\(run)/pause",
            token: service.admin,
            [],
            ["Accept": "text/html"]
        )
        #expect(pause.status == 406)
        #expect(
            try await service.call("GET", "/v1/runs/\(run)", token: service.admin).json["state"] as? String == "running"
        )
        // Neither is one that is answered where it is read.
        #expect(
            try await service.call("POST", "/v1/checkins", token: client, Array("{}".utf8), ["Accept": "text/html"])
                .status == 406
        )
        let update = try #require(assignment["update_url"] as? String)
        #expect(try await service.call("PUT", update, token: client, [1], ["Accept": "text/html"]).status == 406)
    }

    /// RFC 9110 sections 13.1 and 14.2, on a file that never changes.
    @Test func rangesOfAFileAreTheBytesAskedForOrTheWholeOfIt() async throws {
        let service = try await Service()
        let (run, token, _) = try await service.assigned()
        let target = "/v1/runs/\(run)/models/0/weights"
        let whole = try await service.call("GET", target, token: token)
        let count = whole.bytes.count
        let tag = try #require(whole.headers[.eTag])
        #expect(whole.headers[.acceptRanges] == "bytes")
        for (field, part) in [
            ("bytes=0-0", 0..<1), ("bytes=5-9", 5..<10), ("bytes=5-", 5..<count), ("bytes=-5", (count - 5)..<count),
            ("bytes=-99999", 0..<count), ("bytes=0-99999", 0..<count),
            ("bytes=\(count - 1)-\(count - 1)", (count - 1)..<count),
        ] {
            for condition in [nil, tag] {
                let fields = ["Range": field].merging(condition.map { ["If-Range": $0] } ?? [:]) { $1 }
                let answer = try await service.call("GET", target, token: token, [], fields)
                #expect(answer.status == 206 && answer.bytes == Array(whole.bytes[part]), "\(field): \(answer.status)")
                #expect(
                    answer.headers[.contentRange] == "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(count)",
                    "\(field)"
                )
                #expect(answer.headers[.eTag] == tag)
                // A digest of the content would be the part's; the whole file's is that of the representation (RFC 9530).
                let (content, whole) = (HTTPField.Name("Content-Digest"), HTTPField.Name("Repr-Digest"))
                #expect(try answer.headers[#require(content)] == nil && answer.headers[#require(whole)] != nil)
            }
        }
        for field in ["bytes=\(count)-", "bytes=99999-100000", "bytes=-0"] {
            let answer = try await service.call("GET", target, token: token, [], ["Range": field])
            #expect(answer.status == 416 && answer.bytes.isEmpty, "\(field)")
            #expect(answer.headers[.contentRange] == "bytes */\(count)", "\(field)")
        }
        // What is no single range of bytes is no range.
        for field in [
            "bytes=9-5", "bytes=", "bytes=-", "bytes=1", "bytes=a-b", "bytes=+1-2", "bytes=1-2-3", "bytes=0-1,3-4",
            "lines=0-1", "bytes=\u{2460}-5", "bytes=\u{FF13}-5", "bytes=99999999999999999999-",
        ] {
            let answer = try await service.call("GET", target, token: token, [], ["Range": field])
            #expect(answer.status == 200 && answer.bytes == whole.bytes, "\(field): \(answer.status)")
        }
        // The range of another file, or of one that is only nearly this, is not sent.
        for condition in ["\"x\"", "W/" + tag, "Wed, 21 Oct 2015 07:28:00 GMT"] {
            let fields = ["Range": "bytes=0-3", "If-Range": condition]
            #expect(
                try await service.call("GET", target, token: token, [], fields).bytes == whole.bytes,
                "\(condition)"
            )
        }
        for (name, value, status) in [
            ("If-Match", tag, 200), ("If-Match", "*", 200), ("If-Match", "\"x\", \(tag)", 200),
            ("If-Match", "\"x\"", 412),
            ("If-Match", "W/" + tag, 412), ("If-None-Match", "W/" + tag, 304), ("If-None-Match", "*", 304),
            ("If-None-Match", "\"x\"", 200),
        ] {
            let answer = try await service.call("GET", target, token: token, [], [name: value])
            #expect(answer.status == status, "\(name): \(value): \(answer.status)")
            let part = try await service.call("GET", target, token: token, [], [name: value, "Range": "bytes=0-3"])
            #expect(part.status == (status == 200 ? 206 : status), "\(name): \(value): \(part.status)")
        }
        for range in ["bytes=0-3", "bytes=99999-"] {
            let whole = try await service.call("HEAD", target, token: token, [], ["Range": range])
            #expect(whole.status == 200 && whole.headers[.contentRange] == nil, "ranges are for GET: \(range)")
        }
        let head = try await service.call("HEAD", target, token: token)
        #expect(head.status == 200 && head.headers[.eTag] == tag)
    }
}
