import Foundation
import MartletTransport
import SecureAggregation
import UpdateCompression
import WireFormat

/// Decides, before anything is fetched and before any data are opened, whether work has the grant of the helper that the device pins.
///
/// The server relays the session's document, and is not believed: what the device can compute it computes and compares.
struct HelperCheck {
    /// What the device does with an assignment.
    enum Verdict {
        /// The device pins no helper, and the assignment asks for none.
        case unprotected
        case granted(HelperSession)
        /// Why not, for the device's owner.
        case refused(String)
    }

    /// Why an assignment is refused.
    private struct Refusal: Error {
        var reason: String

        init(_ reason: String) { self.reason = reason }

        /// The document says something else than the assignment.
        init(field: String, _ words: String) {
            reason = "the helper's session is not one for this work: field \(field) \(words) (the server may be lying)"
        }
    }

    /// Seconds for which a session counts after its end: clocks of devices are wrong by hours, and a helper erases the key in time.
    static let lateSeconds = 86_400.0

    let key: HelperKey?
    let policy: ClientPrivacyPolicy
    let files: HelperFiles
    let now: Date
    /// Is told of a file that was put aside.
    let setAside: (_ name: String) throws -> Void

    init(_ device: Device) {
        key = device.helper
        policy = device.policy
        files = HelperFiles(files: device.files)
        now = device.now
        setAside = { name in
            let aside = try device.state.setAside(name, at: device.now)
            device.voice.notify(
                ofState:
                    "the device's pseudonym at its helper was damaged and is now \(aside); the server may refuse another one until the "
                    + "device registers again"
            )
        }
    }

    /// Judges an assignment.
    ///
    /// - Throws: `ClientError` of this device's files.
    func verdict(on assignment: Assignment) throws -> Verdict {
        do {
            guard let session = try session(for: assignment) else { return .unprotected }
            return .granted(session)
        } catch let refusal as Refusal {
            return .refused(refusal.reason)
        }
    }

    private func session(for assignment: Assignment) throws -> HelperSession? {
        guard let key else {
            guard assignment.protection == nil else {
                throw Refusal(
                    "the work asks for a helper, and this device pins no helper's key, so that it cannot check the helper's grant: "
                        + "give --helper-key FILE with what martlet helper keys prints"
                )
            }
            try checkThatNoHelperIsForgotten()
            return nil
        }
        guard let protection = assignment.protection, protection.kind == .helper else {
            throw Refusal(
                "the work has no grant of the helper whose key this device pins, and would show the update to the server"
            )
        }
        let document = try document(of: protection, signedBy: key)
        try Self.checkTerms(assignment)
        try checkWork(document, assignment)
        let grid = try Self.grid(assignment, protection, document)
        if let field = grid.differences(in: document).first {
            throw Refusal(field: field, "does not follow from the work's terms")
        }
        try checkPolicy(document, grid)
        try checkDomain(document, key)
        let pseudonym = try files.pseudonym(key, domain: document.domain, setAside: setAside)
        // A key that is none is found now, when no data are open yet.
        do { _ = try SealedSeed.seal(Data(count: MaskStream.seedByteCount), for: document, pseudonym: pseudonym) } catch
        {
            throw Refusal(field: "public key", "is no key")
        }
        return HelperSession(key: key, document: document, grid: grid, pseudonym: pseudonym)
    }

    /// A pin that an unset variable or a forgotten flag has taken away is no permission to show updates to the server.
    private func checkThatNoHelperIsForgotten() throws {
        let reason: String? =
            if policy.minimumNoise > 0 || policy.domains != nil {
                "the owner's policy names a helper's noise or domains"
            } else if try files.files.exists(.helperDomain) {
                "this device has worked with a helper before (\(StateFile.helperDomain.name) in its state directory)"
            } else {
                nil
            }
        guard let reason else { return }
        throw Refusal(
            "\(reason), and no helper's key is pinned now: give --helper-key FILE. To work without a helper from now on, remove that"
        )
    }

    // MARK: - The document

    private func document(
        of protection: Assignment.Protection,
        signedBy key: HelperKey
    ) throws -> SessionDocument {
        let document: SessionDocument
        do { document = try SessionDocument(parsing: protection.document) } catch {
            throw Refusal("the helper's session document cannot be read: \(error.description)")
        }
        guard document.bytes == protection.document else {
            throw Refusal("the helper's session document is written in another form than the protocol's")
        }
        do { try SessionGrant.verify(protection.grant, of: document, by: key.verifyingKey) } catch {
            throw Refusal("the grant is not the signature of this session by the helper whose key this device pins")
        }
        return document
    }

    /// Compares what names the work: the model, the instructions, and which attempt at which round.
    private func checkWork(_ document: SessionDocument, _ assignment: Assignment) throws {
        func require(_ holds: Bool, _ field: String, _ words: String) throws {
            guard holds else { throw Refusal(field: field, words) }
        }
        try require(document.purpose == .training, "purpose", "is not training")
        try require(document.run == assignment.run.text, "run", "names another run")
        try require(document.round == UInt32(exactly: assignment.round), "round", "is another round")
        try require(document.attempt == UInt32(exactly: assignment.attempt), "attempt", "is another attempt")
        // In F32 this is the hash of the file that is fetched, which the download is checked by.
        try require(
            document.model.hexadecimal == assignment.model.sha256.text
                && assignment.model.fileHash == assignment.model.sha256,
            "model",
            "is not the hash of the model to train"
        )
        let instructions = try? assignment.instructionsHash()
        try require(
            document.instructions == instructions,
            "instructions",
            "is not the hash of what the device was told"
        )
        try require(
            Double(document.expires) + Self.lateSeconds >= now.timeIntervalSince1970,
            "expires",
            "is past: the session has ended"
        )
    }

    // MARK: - Terms

    /// Refuses what a masked update has no place for, whatever the instructions say: it would leave beside the mask.
    private static func checkTerms(_ assignment: Assignment) throws {
        func refuse(_ isWrong: Bool, _ what: String) throws {
            guard !isWrong else { throw Refusal("this device masks no update of work with \(what)") }
        }
        let (training, privacy) = (assignment.training, assignment.privacy)
        try refuse(assignment.kind != .train, "kind \(assignment.kind)")
        try refuse(privacy.mode == .local, "mode local")
        try refuse(training.usesControlVariates, "control variates (scaffold)")
        try refuse(training.submit != .delta, "submit \(training.submit)")
        try refuse(training.encoding != .f32, "encoding \(training.encoding)")
        try refuse(assignment.model.encoding != .f32, "a model in encoding \(assignment.model.encoding)")
        if let base = assignment.base {
            // The instructions name its hash in F32, and the download is checked by the hash of what travels.
            try refuse(base.fileHash != base.sha256, "a base model in encoding \(base.encoding)")
        }
        guard privacy.mode == .central else { return }
        try refuse(privacy.clipping.policy != .flat, "clipping policy \(privacy.clipping.policy.name)")
        try refuse(
            ![MechanismWord.gaussian, .discreteGaussian].contains(privacy.mechanism.name),
            "mechanism \(privacy.mechanism.name)"
        )
    }

    /// The numbers of the session as they follow from the terms; n_max is the document's, and B depends on it.
    private static func grid(
        _ assignment: Assignment,
        _ protection: Assignment.Protection,
        _ document: SessionDocument
    ) throws -> ProtectionGrid {
        guard let width = UInt8(exactly: protection.bits).flatMap(RingWidth.init) else {
            throw Refusal(field: "b", "is no width of a ring")
        }
        let privacy = assignment.privacy
        let terms: ProtectionGrid.Terms
        if privacy.mode == .central {
            guard protection.norm == nil else { throw Refusal(field: "K", "is given, and follows from the noise") }
            var scale: Int?
            if case .discreteGaussian(let given) = privacy.mechanism { scale = given }
            terms = .gaussian(
                clippingNorm: privacy.clipping.norm,
                noiseMultiplier: privacy.noiseMultiplier,
                scale: scale
            )
        } else {
            guard let bound = assignment.valueBound else {
                throw Refusal("the work names no value_bound, so that it has no grid")
            }
            terms = .plain(valueBound: bound, norm: protection.norm.map { UInt64(clamping: $0) })
        }
        do {
            return try ProtectionGrid(
                terms,
                width: width,
                coordinateCount: (assignment.updateTensors ?? assignment.tensors).parameterCount,
                maximum: document.maximum
            )
        } catch { throw Refusal("the work's terms have no grid: \(error.description)") }
    }

    // MARK: - What the owner allows

    private func checkPolicy(_ document: SessionDocument, _ grid: ProtectionGrid) throws {
        guard grid.noiseMultiplier >= policy.minimumNoise else {
            throw Refusal(
                "the helper adds noise of \(grid.noiseMultiplier) times what one device can change, and this device wants "
                    + "\(policy.minimumNoise) (minimum_noise)"
            )
        }
        guard Int(document.minimum) >= policy.minimumCohort else {
            throw Refusal(
                "the session sums at least \(document.minimum) updates, and this device wants \(policy.minimumCohort) (minimum_cohort)"
            )
        }
    }

    /// Holds the server to one domain and to its own name at the helper.
    private func checkDomain(_ document: SessionDocument, _ key: HelperKey) throws {
        if let domains = policy.domains, !domains.contains(document.domain) {
            throw Refusal(
                "the session is of domain \(document.domain), which this device's policy does not name (domains)"
            )
        }
        let fresh = HelperFiles.Domain(helper: key.hexadecimal, domain: document.domain, server: document.server)
        guard let known = try files.domain(key) else { return try files.keep(fresh) }
        guard known != fresh else { return }
        // Registered again at another server, the device is still in its domain.
        guard known.server.isEmpty || known.server == document.server else {
            throw Refusal(
                field: "server",
                "is \(document.server), and this device's server was \(known.server) before; if that is right, remove "
                    + "\(StateFile.helperDomain.name) from the state directory"
            )
        }
        // The owner has named the domains.
        guard policy.domains == nil, known.domain != document.domain else { return try files.keep(fresh) }
        throw Refusal(
            field: "domain",
            "is \(document.domain), and this device's server was in \(known.domain) before; if that is right, name both in the "
                + "policy's domains"
        )
    }
}
