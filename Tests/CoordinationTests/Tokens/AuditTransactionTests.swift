import Coordination
import Foundation
import Logging
import StrictJSON
import Synchronization
import TestSupport
import Testing
import WireFormat

/// The row of an operator's action is durable with the action, or neither is.
@Suite(.timeLimit(.minutes(10)))
struct AuditTransactionTests {
    private func trail() -> AuditTrail {
        AuditTrail(action: "POST /v1/populations", target: "/v1/populations", address: "192.0.2.7", requestID: "r")
    }

    @Test("A request that fails after a part of it was done has a second row.")
    func failureAfterAPart() async throws {
        let directory = try TemporaryDirectory()
        let coordinator = try await Coordinator(
            configuration: CoordinatorConfiguration(dataDirectory: directory.path),
            store: InMemoryRunStore(),
            logger: Logger(label: "test")
        )
        let admin = try #require(try await coordinator.makeFirstAdminToken())
        let request = try PopulationRequest.read(JSONValue.parse(Array(#"{"name": "p"}"#.utf8)))
        let trail = trail()
        try await AuditTrail.$current.withValue(trail) {
            _ = await coordinator.principal(token: admin)
            _ = try await coordinator.createPopulation(request)
            await coordinator.auditRefusal(trail, code: "storage_failed", unwritten: 3)
            await coordinator.auditRefusal(trail, code: "storage_failed")
        }
        let rows = try await coordinator.auditRows(AuditQuery(limit: 10)).reversed()
        #expect(rows.map(\.outcome) == [.done, .refused, .refused])
        #expect(rows.map(\.target) == ["/v1/populations", "3", "/v1/populations"])
        #expect(rows.map(\.code) == [nil, "storage_failed", "storage_failed"])
    }

    @Test func anActionAndItsRowAreOneTransaction() async throws {
        let directory = try TemporaryDirectory()
        let store = NotingStore(InMemoryRunStore())
        let coordinator = try await Coordinator(
            configuration: CoordinatorConfiguration(dataDirectory: directory.path),
            store: store,
            logger: Logger(label: "test")
        )
        let admin = try #require(try await coordinator.makeFirstAdminToken())
        let request = try PopulationRequest.read(JSONValue.parse(Array(#"{"name": "p"}"#.utf8)))
        let trail = AuditTrail(
            action: "POST /v1/populations",
            target: "/v1/populations",
            address: "192.0.2.7",
            requestID: "r"
        )
        try await AuditTrail.$current.withValue(trail) {
            _ = await coordinator.principal(token: admin)
            _ = try await coordinator.createPopulation(request)
            try await coordinator.auditCompletion(trail)
        }
        let audited = store.transactions.filter { $0.contains("audit") }
        #expect(audited.count == 1 && audited.first?.contains("population") == true, "\(store.transactions)")
    }
}

/// Notes what each transaction holds.
private final class NotingStore: ForwardingRunStore {
    let inner: any RunStore
    private let noted = Mutex<[Set<String>]>([])

    init(_ inner: any RunStore) { self.inner = inner }

    var transactions: [Set<String>] { noted.withLock { $0 } }

    func commit(_ changes: [StoreChange]) throws {
        let kinds = changes.map { change in
            switch change {
            case .audit: "audit"
            case .population: "population"
            default: "other"
            }
        }
        noted.withLock { $0.append(Set(kinds)) }
        try inner.commit(changes)
    }
}
