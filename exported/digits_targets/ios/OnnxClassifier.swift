// Written for onnxruntime on iOS, not run by us.
// Package: https://github.com/microsoft/onnxruntime-swift-package-manager, from 1.24.2, product onnxruntime;
// model.onnx goes into the app's bundle.
import CoreGraphics
import Foundation
import OnnxRuntimeBindings

private let labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
private let size = 64  // numbers of one sample
private let batch = 1  // a batch above one is filled with the one sample
private typealias Input = Float32
private typealias Output = Float32

/// What the model takes of a picture, laid on white but not turned (turn it upright first): black is 0.0, white 16.0.
private func values(_ image: CGImage) -> [Double] {
    var pixels = [UInt8](repeating: 255, count: 256)
    let scale = max(8.0 / Double(image.width), 8.0 / Double(image.height))  // the centre of it
    let (w, h) = (Double(image.width) * scale, Double(image.height) * scale)
    pixels.withUnsafeMutableBytes { memory in
        let context = CGContext(
            data: memory.baseAddress, width: 8, height: 8, bitsPerComponent: 8, bytesPerRow: 32,
            space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.premultipliedLast.rawValue)!
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(CGRect(x: 0, y: 0, width: 8, height: 8))
        context.interpolationQuality = .high
        context.draw(image, in: CGRect(x: (8.0 - w) / 2, y: (8.0 - h) / 2, width: w, height: h))
    }
    var values = [Double](repeating: 0, count: size)
    for i in 0..<64 {
        let (r, g, b) = (Int(pixels[4 * i]), Int(pixels[4 * i + 1]), Int(pixels[4 * i + 2]))
        let channels = [(19595 * r + 38470 * g + 7471 * b + 32768) >> 16]
        for (c, v) in channels.enumerated() {
            values[i * 1 + c] = Double(v) / 255 * 16.0 + 0.0
        }
    }
    return values
}

/// Raw numbers as the file's bytes.
private func bytes(_ values: [Double]) -> Data {
    let one = values.enumerated().map { (i, raw) -> Input in
        let x = raw
        return Input(x)
    }
    let all = (0..<batch).flatMap { _ in one }
    return all.withUnsafeBufferPointer { Data(buffer: $0) }
}

/// The file's bytes as real numbers, of the first sample.
private func reals(_ data: Data) -> [Double] {
    let all = data.withUnsafeBytes { Array($0.bindMemory(to: Output.self)) }
    return all.prefix(all.count / batch).map { Double($0) }
}

final class OnnxClassifier {
    private let session: ORTSession

    init() throws {
        let path = Bundle.main.path(forResource: "model.onnx", ofType: nil)!
        session = try ORTSession(env: ORTEnv(loggingLevel: .warning), modelPath: path, sessionOptions: nil)
    }

    func classify(_ image: CGImage) throws -> (String, Double) { try classify(values(image)) }

    /// Label and probability of one sample of raw numbers.
    func classify(_ values: [Double]) throws -> (String, Double) {
        let tensor = try ORTValue(
            tensorData: NSMutableData(data: bytes(values)), elementType: .float,
            shape: [1, 8, 8, 1])
        let outputs = try session.run(
            withInputs: ["image": tensor], outputNames: ["probabilities"], runOptions: nil)
        let found = reals(try outputs["probabilities"]!.tensorData() as Data)
        let best = found.indices.max { found[$0] < found[$1] }!
        return (labels[best], found[best])
    }
}
