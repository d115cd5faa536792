public import Foundation

/// Writes parameters as safetensors: sorted by name, F32, metadata sorted by key, so equal input gives equal bytes.
public enum SafetensorsWriter {
    /// The file as bytes.
    public static func encode(_ vector: ParameterVector, metadata: [String: String] = [:]) -> Data {
        var file = header(for: vector.layout, metadata: metadata)
        file.reserveCapacity(file.count + 4 * vector.values.count)
        vector.values.withUnsafeBytes { file.append(contentsOf: $0) }
        return file
    }

    /// The eight bytes of length and the JSON header, padded with spaces so that the data is aligned to eight bytes.
    public static func header(for layout: ParameterLayout, metadata: [String: String]) -> Data {
        var json = "{"
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { quoted($0.key) + ":" + quoted($0.value) }
            json += "\"__metadata__\":{" + pairs.joined(separator: ",") + "}"
        }
        for (index, tensor) in layout.tensors.enumerated() {
            if json.utf8.count > 1 { json += "," }
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            let (begin, end) = (layout.offsets[index] * 4, layout.offsets[index + 1] * 4)
            json += quoted(tensor.name) + ":{\"dtype\":\"F32\",\"shape\":[\(shape)],\"data_offsets\":[\(begin),\(end)]}"
        }
        json += "}"
        while json.utf8.count % 8 != 0 { json += " " }
        var data = Data()
        withUnsafeBytes(of: UInt64(json.utf8.count).littleEndian) { data.append(contentsOf: $0) }
        data.append(contentsOf: json.utf8)
        return data
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case let control where control.value < 0x20:
                let digits = String(control.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
