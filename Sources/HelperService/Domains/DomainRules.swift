import Coordination
import DifferentialPrivacy
import SecureAggregation
import WireFormat

/// Whether a domain admits a session, by the helper's own policy and never by what the server says about it.
enum DomainRules {
    /// - Returns: The noise that the helper will add.
    /// - Throws: `CoordinationError` `policy_refused` with the first rule that is broken.
    static func admit(_ document: SessionDocument, _ domain: DomainRecord) throws -> SessionNoise {
        func require(_ holds: Bool, _ sentence: @autoclosure () -> String) throws {
            guard holds else { throw refusal("domain '\(domain.name)': " + sentence()) }
        }
        let policy = domain.policy
        let noise: SessionNoise
        do throws(SecureAggregationError) { noise = try SessionNoise(of: document) } catch {
            throw refusal(error.description)
        }
        try require(
            document.minimum >= policy.minimum,
            "a sum needs at least \(policy.minimum) updates, and the session names \(document.minimum)"
        )
        try require(
            document.maximum <= policy.maximum,
            "a sum has at most \(policy.maximum) updates, and the session names \(document.maximum)"
        )
        try require(
            document.maxParticipations <= policy.maxParticipations,
            "max_participations is \(policy.maxParticipations) at most"
        )
        try require(
            document.coordinateCount <= UInt64(policy.maxCoordinates),
            "a sum has at most \(policy.maxCoordinates) coordinates"
        )
        guard domain.budget != nil else {
            try require(noise == .none, "it has no budget, so its sums have no noise: make a domain with a budget")
            return noise
        }
        try require(noise != .none, "it has a budget, so every sum has noise")
        let multiplier = noise.multiplier(norm: document.norm)
        try require(
            multiplier >= policy.leastNoise,
            "the noise over K is \(multiplier), and \(policy.leastNoise) at least is wanted"
        )
        return noise
    }

    static func refusal(_ sentence: String) -> CoordinationError {
        CoordinationError(.forbidden, HelperCode.policyRefused.rawValue, sentence)
    }
}

extension HelperSessionRequest {
    /// The document with what the helper fills in.
    ///
    /// - Throws: `CoordinationError` `invalid_document`.
    func document(of caller: ServerCaller, publicKey: [UInt8], expires: UInt64) throws -> SessionDocument {
        guard let width = UInt8(exactly: bits).flatMap(RingWidth.init(rawValue:)), let model = Self.bytes(model),
            let instructions = Self.bytes(instructions)
        else {
            throw CoordinationError(.unprocessable, "invalid_document", "bits are 16, 32 or 64, and hashes 64 digits")
        }
        let document = SessionDocument(
            purpose: purpose.value,
            server: caller.server,
            domain: caller.domain,
            run: run,
            round: UInt32(clamping: round),
            attempt: UInt32(clamping: attempt),
            model: model,
            instructions: instructions,
            width: width,
            coordinateCount: UInt64(clamping: coordinates),
            step: step,
            coordinateBound: UInt64(clamping: coordinateBound),
            norm: UInt64(clamping: norm),
            noiseDeviation: noiseDeviation,
            measure: measure == .l1 ? .l1 : .l2,
            noise: noise.value,
            minimum: UInt32(clamping: minimum),
            maximum: UInt32(clamping: maximum),
            maxParticipations: UInt32(clamping: maxParticipations),
            publicKey: publicKey,
            expires: expires
        )
        do throws(SecureAggregationError) { try document.validate() } catch {
            throw CoordinationError(.unprocessable, error.code.rawValue, error.description)
        }
        return document
    }

    private static func bytes(_ text: String) -> [UInt8]? { LedgerChain.bytes(text) }
}

extension HelperPurpose {
    var value: SessionDocument.Purpose {
        switch self {
        case .training: .training
        case .evaluation: .evaluation
        case .histogram: .histogram
        case .prefixCounts: .prefixCounts
        }
    }
}

extension HelperNoise {
    var value: SessionDocument.Noise {
        switch self {
        case .none: .none
        case .gaussian: .gaussian
        case .laplace: .laplace
        }
    }
}
