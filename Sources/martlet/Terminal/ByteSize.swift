import ArgumentParser

/// A number of bytes on the command line, plain or as `16KiB`, `500MiB`, `4GiB`.
struct ByteSize: ExpressibleByArgument {
    let bytes: Int

    init(_ bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        guard let bytes = SettingDefinition.byteCount(argument), bytes > 0 else { return nil }
        self.bytes = bytes
    }

    var defaultValueDescription: String {
        bytes.isMultiple(of: 1 << 30) ? "\(bytes >> 30)GiB" : "\(bytes)"
    }
}
