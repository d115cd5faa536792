import Foundation
import LocalTraining
import StrictJSON
import Tensors
import WireFormat

/// Documents that are nearly run specifications.
enum RunDocuments {
    static let good = [
        #"{"population":"p","rounds":3,"model":{"architecture":"external"},"cohort":{"goal":4},"aggregation":{"example_cap":{"times_median":3.5},"norm_bound":"none","weight_unit":"tokens"}}"#,
        #"{"name":"k","population":"p","rounds":40,"model":{"architecture":"cifg-lstm","config":{"vocab_size":52,"embedding_dim":16,"hidden_dim":64}},"cohort":{"goal":277,"minimum":250,"over_selection":1.0,"max_participations":2},"privacy":{"mode":"central","noise_multiplier":0.86,"clipping":{"norm":1.0,"policy":"flat"}}}"#,
        #"{"population":"p","rounds":9,"model":{"architecture":"tabular","config":{"schema":{"target":"y","columns":[{"name":"x","type":"number"}]},"hidden":[8]}},"cohort":{"goal":8,"policy":"poisson","sampling_rate":0.1,"requirements":"memory_bytes >= 2e9 && labels.locale == 'en'","tiers":3,"lease_s":30},"training":{"local":{"optimizer":"momentum","learning_rate":0.1,"momentum":0.9,"batch_size":8,"epochs":2},"encoding":"int8"},"aggregation":{"rule":"trimmed_mean","malicious_fraction":0.2,"optimizer":{"name":"yogi","beta1":0.9}}}"#,
        #"{"population":"p","rounds":2,"model":{"architecture":"decoder","config":{"vocab_size":64,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"max_position_embeddings":32,"tokenizer":{"type":"char","alphabet":"abc"}},"initialization":{"seed":"7"}},"cohort":{"goal":3},"evaluation":{"every":2,"cohort_goal":2},"stop":{"metric":"top1","at_least":0.4,"patience":2},"aggregation":{"mode":"buffered","buffered":{"concurrency":6,"buffer":3,"max_staleness":4}}}"#,
    ].map { try? JSONValue.parse(Array($0.utf8)) }.compactMap { $0 }

    private static let odd: [JSONValue] = [
        .null, .boolean(true), .integer(0), .integer(-1), .integer(1), .integer(.max), .integer(.min), .number(0.5),
        .number(-0.0), .number(1e308), .number(.leastNonzeroMagnitude), .number(1e19), .string(""), .string("f32"),
        .string("\u{0}é\n\""),
        .string("central"), .string("poisson"), .string("9223372036854775808"), .array([]), .object([:]),
        .array([.integer(1), .null]), .object(["type": .string("char")]),
    ]

    static func make(_ generator: inout Xoshiro256StarStar) -> JSONValue {
        var document = generator.pick(good)
        for _ in 0..<generator.nextIndex(below: 4) { change(&document, &generator) }
        return document
    }

    /// Changes one place of a tree.
    private static func change(_ value: inout JSONValue, _ generator: inout Xoshiro256StarStar) {
        switch value {
        case .object(var fields) where !fields.isEmpty && !generator.oneIn(6):
            let name = generator.pick(fields.keys.sorted())
            switch generator.nextIndex(below: 8) {
            case 0: fields[name] = nil
            case 1: fields[name + "x"] = fields[name]
            case 2: fields["noise_multiplier"] = generator.pick(odd)
            default:
                if var item = fields[name] {
                    change(&item, &generator)
                    fields[name] = item
                }
            }
            value = .object(fields)
        case .array(var items) where !items.isEmpty && !generator.oneIn(4):
            let place = generator.nextIndex(below: items.count)
            change(&items[place], &generator)
            value = .array(items)
        case .integer(let number) where generator.oneIn(2):
            value = .integer(number &+ generator.nextIndex(below: 5) &- 2)
        case .number(let number) where generator.oneIn(2): value = .number(number / 10)
        case .string(let text) where generator.oneIn(2):
            value = .string(text + generator.pick(["x", "\"", " && a", "'"]))
        default: value = generator.pick(odd)
        }
    }

    /// What is read is written and read again the same, and an architecture can be asked about it.
    static func check(_ specification: RunSpecification, _ input: [UInt8]) throws {
        let bytes = Array(try WireCoding.encode(specification))
        let again = try? RunSpecification.read(JSONValue.parse(bytes))
        try expect(
            again == specification,
            "reads differently once it has been written: \(String(decoding: bytes, as: UTF8.self))",
            input
        )
        guard let config = specification.model.config else { return }
        let description = ModelDescription(
            architecture: specification.model.architecture,
            config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
        )
        _ = try? ModelArchitectures.make(description)
    }
}
