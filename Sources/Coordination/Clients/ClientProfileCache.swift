import Foundation
import Synchronization
import WireFormat

/// Parsed labels and capabilities of clients.
///
/// An entry holds for the texts that it was parsed from, and for no others: copies of a table may share the cache.
final class ClientProfileCache: Sendable {
    private struct Entry {
        var labels: String
        var capabilities: String
        var name: String?
        var profile: EligibilityExpression.Subject
    }

    /// Entries that are kept: clients that come are parsed again, and those that do not come cost no memory.
    private static let limit = 50_000

    private let entries = Mutex<[String: Entry]>([:])

    /// What is known of a client.
    func profile(of client: ClientRecord) -> EligibilityExpression.Subject {
        entries.withLock { entries in
            if let known = entries[client.id], known.labels == client.labels,
                known.capabilities == client.capabilities, known.name == client.name
            {
                return known.profile
            }
            let profile = Self.parse(client)
            if entries.count >= Self.limit { entries.removeAll(keepingCapacity: true) }
            entries[client.id] = Entry(
                labels: client.labels,
                capabilities: client.capabilities,
                name: client.name,
                profile: profile
            )
            return profile
        }
    }

    /// Parses what a client says of itself.
    static func parse(_ client: ClientRecord) -> EligibilityExpression.Subject {
        let labels = try? JSONDecoder().decode([String: String].self, from: Data(client.labels.utf8))
        let capabilities = try? WireCoding.decodeStored(ClientCapabilities.self, from: Data(client.capabilities.utf8))
        return EligibilityExpression.Subject(
            capabilities: capabilities ?? .init(),
            labels: labels ?? [:],
            name: client.name
        )
    }
}
