// The same request as a line for a shell, which writes picture-SEED.png for each picture.

import { fieldsOf, pathOf, text } from "./settings.js";

const WRITE =
  "import base64, json, sys\n" +
  'for one in json.load(sys.stdin)["data"]:\n' +
  '    open("picture-%d.png" % one["seed"], "wb").write(base64.b64decode(one["b64_json"]))';

/** Quote a word for a POSIX shell. */
export const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/** Return the command. A key is named as $SSD1B_KEY, never shown; a picture to start from by its file name. */
export function curlOf(settings, origin, withKey) {
  const fields = fieldsOf(settings);
  const key = withKey ? ` \\\n  -H "authorization: Bearer $SSD1B_KEY"` : "";
  const body = settings.start ? form(fields, settings.start.name) : json(fields);
  return `curl -sS ${quoted(origin + pathOf(settings))}${key} \\\n${body} \\\n  | python3 -c ${quoted(WRITE)}`;
}

function json(fields) {
  return `  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(fields))}`;
}

function form(fields, picture) {
  // --form-string, since -F would read a value that begins with @ or < as a file
  const parts = Object.entries(fields).map(([name, value]) => `  --form-string ${quoted(`${name}=${text(value)}`)}`);
  return [...parts, `  -F ${quoted(`image=@"${picture.replaceAll(/["\\]/g, "\\$&")}"`)}`].join(" \\\n");
}
