/** SQL files are imported as their text (`with { type: "text" }`). */
declare module "*.sql" {
  const text: string;
  export default text;
}
