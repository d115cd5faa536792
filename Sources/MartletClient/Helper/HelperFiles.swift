import Crypto
import Foundation
import MartletTransport
import SecureAggregation
import Tensors

/// What a device keeps for a helper: its pseudonym for each pair of helper and domain, and the domain that its server is in.
struct HelperFiles: Sendable {
    /// The name under which one device is listed at a helper.
    struct Pseudonym: Codable, Equatable, Sendable {
        /// The helper's key, hexadecimal.
        var helper: String
        var domain: String
        /// 32 random bytes, base64.
        var pseudonym: String

        /// The bytes; `nil` for another text.
        var bytes: [UInt8]? {
            Data(base64Encoded: pseudonym).flatMap { $0.count == SeedList.pseudonymByteCount ? Array($0) : nil }
        }
    }

    /// The first domain that the device's server has named.
    struct Domain: Codable, Equatable, Sendable {
        /// The helper's key, hexadecimal.
        var helper: String
        var domain: String
        /// The server's name at the helper.
        var server: String
    }

    let files: StateFiles

    // MARK: - Pseudonyms

    /// The pseudonym for a domain; a new one is on the disk before it is returned.
    ///
    /// A file that is damaged is put aside: what the device has spent is in its ledger, not here.
    func pseudonym(
        _ key: HelperKey,
        domain: String,
        setAside: (_ name: String) throws -> Void
    ) throws -> [UInt8] {
        let file = StateFile<Pseudonym>(name: StateFileName.pseudonym(key, domain: domain))
        do {
            if let kept = try files.read(file) {
                if kept.helper == key.hexadecimal, kept.domain == domain, let bytes = kept.bytes { return bytes }
                try setAside(file.name)
            }
        } catch let error as ClientError where error.isStateDamaged {
            try setAside(file.name)
        }
        let fresh = Pseudonym(
            helper: key.hexadecimal,
            domain: domain,
            pseudonym: SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }.base64EncodedString()
        )
        try files.write(file, fresh)
        return fresh.bytes ?? []
    }

    // MARK: - The server's domain

    /// The domain that was kept; `nil` before there was one for this helper.
    ///
    /// - Throws: `ClientError` with code `state_damaged`.
    func domain(_ key: HelperKey) throws -> Domain? {
        try files.read(.helperDomain).flatMap { $0.helper == key.hexadecimal ? $0 : nil }
    }

    /// Forgets what a server knows the device by: the next client that it becomes has another pseudonym.
    ///
    /// The domain stays.
    func forgetServer() throws {
        for name in try files.names(beginningWith: StateFileName.pseudonymPrefix) { try files.remove(name) }
        guard var known = try? files.read(.helperDomain) else { return }
        known.server = ""
        try files.write(.helperDomain, known)
    }

    /// Keeps the first domain.
    func keep(_ domain: Domain) throws { try files.write(.helperDomain, domain) }
}

extension StateFile where Value == HelperFiles.Domain {
    static var helperDomain: Self { Self(name: "helper-domain.json") }
}

extension StateFileName {
    /// The device's pseudonym at a helper: the name is a hash, since a domain's name is what a server says.
    static func pseudonym(_ key: HelperKey, domain: String) -> String {
        // The key has 32 bytes, so that no two pairs have the same text.
        let hash = SHA256.hash(data: key.rawRepresentation + Data(domain.utf8))
        return pseudonymPrefix + Array(hash).hexadecimal + ".json"
    }

    static let pseudonymPrefix = "pseudonym-"
}
