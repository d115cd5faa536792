import Crypto
package import StrictJSON
import Tensors

extension Assignment {
    /// Everything of the assignment that steers what a device trains and how it encodes, without names, places and times.
    ///
    /// It is of the assignment as it was read, before a tokeniser that is fetched takes the place of its reference.
    /// The server computes it of what it is about to send, read back by the same reader, so that both sides agree by construction.
    ///
    /// - Throws: `EncodingError`, for a number that JSON cannot hold.
    package func instructions() throws -> JSONValue {
        let rules = JSONEncodingRules(hasSnakeCaseNames: true, writesNonFinite: true)
        var fields: [String: JSONValue] = [
            "kind": .string(kind.rawValue),
            "architecture": .object(Self.described(architecture)),
            "training": try JSONValue(encoding: training, rules),
            "privacy": try JSONValue(encoding: privacy, rules),
            "tensors": Self.described(tensors),
        ]
        fields["update_tensors"] = updateTensors.map(Self.described)
        fields["value_bound"] = valueBound.map { JSONValue($0) }
        fields["example_cap"] = exampleCap.map { .integer($0) }
        fields["weight_unit"] = weightUnit.map { .string($0.rawValue) }
        fields["release"] = release.map {
            .object(["metrics": .array($0.metrics.map { .string($0) }), "loss_bound": JSONValue($0.lossBound)])
        }
        // Frozen parameters steer the training as much as the model does, which the session's document names itself.
        fields["base"] = base.map { .string($0.sha256.text) }
        fields["control"] = control.map { .string($0.sha256.text) }
        fields["protection"] = protection.map {
            var terms: [String: JSONValue] = ["kind": .string($0.kind.rawValue), "bits": .integer($0.bits)]
            terms["norm"] = $0.norm.map { .integer($0) }
            return .object(terms)
        }
        return .object(fields)
    }

    /// SHA-256 of the instructions as canonical JSON, 32 bytes.
    ///
    /// - Throws: `EncodingError`, for a number that JSON cannot hold.
    package func instructionsHash() throws -> [UInt8] {
        Array(SHA256.hash(data: Array(try instructions().canonicalText.utf8)))
    }

    /// Name and configuration; of a tokeniser that is fetched what it is, and not where.
    private static func described(_ model: RunSpecification.Model) -> [String: JSONValue] {
        var fields: [String: JSONValue] = ["name": .string(model.architecture)]
        guard case .object(var config)? = model.config else { return fields }
        if case .object(var tokenizer)? = config["tokenizer"], tokenizer["sha256"] != nil {
            tokenizer["url"] = nil
            config["tokenizer"] = .object(tokenizer)
        }
        fields["config"] = .object(config)
        return fields
    }

    private static func described(_ layout: ParameterLayout) -> JSONValue {
        .array(
            layout.tensors.map {
                .object(["name": .string($0.name), "shape": .array($0.shape.map { .integer($0) })])
            }
        )
    }
}
